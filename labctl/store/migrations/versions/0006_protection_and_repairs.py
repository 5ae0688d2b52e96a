"""Instance protection, and automatic repairs with their history."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and a table; moments are text, see `schema.Moment`."""
    for name in ("protect_from_scale_in", "protect_from_scale_set_actions"):
        op.add_column(
            "instance", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.add_column(
        "scale_set", sa.Column("repairs_suspended_at", sa.String(length=32), nullable=True)
    )
    op.add_column(
        "scale_set",
        sa.Column("repairs_suspended_reason", sa.Text(), nullable=False, server_default=""),
    )
    op.add_column("scale_set", sa.Column("repairs_resumed_at", sa.String(length=32), nullable=True))
    op.create_table(
        "repair",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("began_at", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.String(length=32), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_repair_scale_set"), "repair", ["scale_set"], unique=False)
