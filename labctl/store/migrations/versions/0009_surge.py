"""Upgrades by new instances that come for the old ones."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column."""
    op.add_column("upgrade_member", sa.Column("replaced_by", sa.String(length=48), nullable=True))
