"""Holding upgrades back: paused by their user, maintenance windows."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns; moments are text, see `schema.Moment`."""
    op.add_column("upgrade", sa.Column("paused_at", sa.String(length=32), nullable=True))
    op.add_column(
        "upgrade",
        sa.Column("ignores_windows", sa.Boolean(), nullable=False, server_default="0"),
    )
