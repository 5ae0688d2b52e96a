"""Holding upgrades back: paused by their user, maintenance windows, approvals."""

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
    op.add_column("upgrade", sa.Column("control", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("upgrade", sa.Column("approval_asked_at", sa.String(length=32), nullable=True))
    op.add_column(
        "upgrade", sa.Column("approved_batch", sa.Integer(), nullable=False, server_default="0")
    )
    for name in ("cancel_reason", "end_reason"):
        op.add_column("upgrade", sa.Column(name, sa.Text(), nullable=False, server_default=""))
