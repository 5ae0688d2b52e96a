"""Custom metrics of an instance's application, and what an upgrade took from them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns; instances and members of before have told nothing."""
    op.add_column(
        "instance", sa.Column("custom_metrics", sa.Text(), nullable=False, server_default="")
    )
    op.add_column("upgrade_member", sa.Column("phase", sa.Integer(), nullable=True))
    op.add_column(
        "upgrade_member",
        sa.Column("skips_upgrade", sa.Boolean(), nullable=False, server_default="0"),
    )
