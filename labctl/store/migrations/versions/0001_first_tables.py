"""The first tables. Frozen: later changes of the schema are migrations of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; moments are text, see `schema.Moment`."""
    op.create_table(
        "data_disk",
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=12), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("serial", sa.String(length=20), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("is_made", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("scale_set", "ordinal", "name"),
        sa.UniqueConstraint("path"),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("instance", sa.String(length=48), nullable=True),
        sa.Column("upgrade", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_event_scale_set"), "event", ["scale_set"], unique=False)
    op.create_table(
        "image_definition",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("os_type", sa.String(length=16), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "scale_set",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("model_revision", sa.Integer(), nullable=False),
        sa.Column("image_version", sa.String(length=32), nullable=False),
        sa.Column("image_digest", sa.String(length=64), nullable=False),
        sa.Column("is_deleting", sa.Boolean(), nullable=False),
        sa.Column("next_ordinal", sa.Integer(), nullable=False),
        sa.Column("subnet", sa.String(length=18), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("subnet"),
    )
    op.create_table(
        "upgrade",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("started_by", sa.String(length=16), nullable=False),
        sa.Column("target_version", sa.String(length=32), nullable=False),
        sa.Column("target_digest", sa.String(length=64), nullable=False),
        sa.Column("model_revision", sa.Integer(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("health_timeout", sa.Integer(), nullable=False),
        sa.Column("restores", sa.Boolean(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("ended_at", sa.String(length=32), nullable=True),
        sa.Column("cancel_asked_at", sa.String(length=32), nullable=True),
        sa.Column("batch_ended_at", sa.String(length=32), nullable=True),
        sa.Column("batches", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=80), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_upgrade_scale_set"), "upgrade", ["scale_set"], unique=False)
    op.create_table(
        "image_version",
        sa.Column("definition", sa.String(length=40), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("file_size", sa.Integer(), nullable=False),
        sa.Column("virtual_size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("published_at", sa.String(length=32), nullable=True),
        sa.Column("excluded_from_latest", sa.Boolean(), nullable=False),
        sa.Column("build_id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["definition"],
            ["image_definition.name"],
        ),
        sa.PrimaryKeyConstraint("definition", "version"),
    )
    op.create_index(op.f("ix_image_version_digest"), "image_version", ["digest"], unique=False)
    op.create_table(
        "instance",
        sa.Column("name", sa.String(length=48), nullable=False),
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("ssh_port", sa.Integer(), nullable=False),
        sa.Column("agent_port", sa.Integer(), nullable=False),
        sa.Column("probe_port", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(length=15), nullable=True),
        sa.Column("host_key", sa.Text(), nullable=False),
        sa.Column("host_key_public", sa.Text(), nullable=False),
        sa.Column("agent_token", sa.String(length=64), nullable=False),
        sa.Column("health", sa.String(length=16), nullable=False),
        sa.Column("health_since", sa.String(length=32), nullable=True),
        sa.Column("health_detail", sa.Text(), nullable=False),
        sa.Column("restart_asked_at", sa.String(length=32), nullable=True),
        sa.Column("rerun_custom_data_asked_at", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["scale_set"], ["scale_set.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("address"),
        sa.UniqueConstraint("mac"),
        sa.UniqueConstraint("scale_set", "ordinal"),
        sa.UniqueConstraint("uuid"),
    )
    op.create_table(
        "model",
        sa.Column("scale_set", sa.String(length=40), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["scale_set"], ["scale_set.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("scale_set", "revision"),
    )
    op.create_table(
        "upgrade_member",
        sa.Column("upgrade", sa.Integer(), nullable=False),
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=True),
        sa.Column("from_generation", sa.Integer(), nullable=True),
        sa.Column("to_generation", sa.Integer(), nullable=True),
        sa.Column("from_version", sa.String(length=32), nullable=False),
        sa.Column("admitted_at", sa.String(length=32), nullable=True),
        sa.Column("stopped_at", sa.String(length=32), nullable=True),
        sa.Column("settled_at", sa.String(length=32), nullable=True),
        sa.Column("healthy_at", sa.String(length=32), nullable=True),
        sa.Column("ended_at", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["upgrade"], ["upgrade.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upgrade", "instance"),
    )
    op.create_table(
        "extension_run",
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("finished_at", sa.String(length=32), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("output", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["instance"], ["instance.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("instance", "generation", "name"),
    )
    op.create_table(
        "generation",
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("image_version", sa.String(length=32), nullable=False),
        sa.Column("image_digest", sa.String(length=64), nullable=False),
        sa.Column("model_revision", sa.Integer(), nullable=False),
        sa.Column("prepared", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=True),
        sa.Column("console_offset", sa.Integer(), nullable=False),
        sa.Column("ready_at", sa.String(length=32), nullable=True),
        sa.Column("failure_rung", sa.String(length=16), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("failure_at", sa.String(length=32), nullable=True),
        sa.Column("evidence_at", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["instance"], ["instance.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("instance", "number"),
    )
    op.create_table(
        "port",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("instance", sa.String(length=48), nullable=False),
        sa.ForeignKeyConstraint(["instance"], ["instance.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
    )
