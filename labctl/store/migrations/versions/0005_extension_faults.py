"""Runs of extensions tell what kept them from succeeding, and under which tag they ran."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns; earlier runs have neither."""
    op.add_column("extension_run", sa.Column("fault", sa.String(length=16), nullable=True))
    op.add_column("extension_run", sa.Column("tag", sa.String(length=80), nullable=True))
