"""Upgrades to a new model, and the wish for one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrades so far were for images."""
    with op.batch_alter_table("upgrade") as table:
        table.add_column(
            sa.Column("purpose", sa.String(length=16), nullable=False, server_default="OsImage")
        )
    with op.batch_alter_table("scale_set") as table:
        table.add_column(
            sa.Column("image_revision", sa.Integer(), nullable=False, server_default="1")
        )
        table.add_column(sa.Column("rollout_asked_at", sa.String(length=32)))
        table.add_column(sa.Column("rollout_version", sa.String(length=32)))
        table.add_column(sa.Column("rollout_digest", sa.String(length=64)))
    # So far only a completed upgrade moved the image. Upgrades outlive their scale set, so those
    # of an earlier one of the same name are left out.
    op.execute(
        "UPDATE scale_set SET image_revision = COALESCE((SELECT u.model_revision FROM upgrade u "
        "WHERE u.scale_set = scale_set.name AND u.code = 'Completed' "
        "AND u.started_at >= scale_set.created_at ORDER BY u.id DESC LIMIT 1), 1)"
    )
