"""Hooks around stops with what they said, and the receivers of notifications."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; moments are text, see `schema.Moment`."""
    for name in ("drained_at", "out_of_service_since", "hook_failed_at"):
        op.add_column("instance", sa.Column(name, sa.String(length=32), nullable=True))
    op.add_column("instance", sa.Column("hook_failed_kind", sa.String(length=16), nullable=True))
    op.add_column("instance", sa.Column("hook_failed_message", sa.Text(), nullable=True))
    op.add_column(
        "instance", sa.Column("hook_tries", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("upgrade_member", sa.Column("from_model", sa.Integer(), nullable=True))
    op.create_table(
        "hook_run",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.Column("upgrade", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("finished_at", sa.String(length=32), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("has_failed", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_hook_run_instance"), "hook_run", ["instance"], unique=False)
    op.create_index(op.f("ix_hook_run_upgrade"), "hook_run", ["upgrade"], unique=False)
    op.create_table(
        "receiver",
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("told_at", sa.String(length=32), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.String(length=32), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scale_set", "name"),
    )
