"""The first tables."""

from alembic import op

from labctl.store.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table. Once a release is out, this becomes a frozen copy of its tables."""
    metadata.create_all(op.get_bind())
