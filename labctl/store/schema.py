"""The tables. Times are ISO 8601 text in UTC; JSON is text; booleans are 0 and 1."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from typing_extensions import override

metadata = MetaData()


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept as UTC text that sorts by time."""

    impl = String(32)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write UTC with microseconds, so that text order is time order."""
        if value is None:
            return None
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    @override
    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Read an aware datetime back."""
        return None if value is None else datetime.fromisoformat(value)


scale_set = Table(
    "scale_set",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("model_revision", Integer, nullable=False),
    Column("image_version", String(32), nullable=False),
    Column("image_digest", String(64), nullable=False),
    Column("is_deleting", Boolean, nullable=False, default=False),
    Column("next_ordinal", Integer, nullable=False, default=0),
    Column("subnet", String(18), unique=True),
    Column("automatic_since", Moment),  # when automatic OS upgrades were switched on
    Column("repairs_suspended_at", Moment),
    Column("repairs_suspended_reason", Text, nullable=False, default=""),
    Column("repairs_resumed_at", Moment),
    Column("created_at", Moment, nullable=False),
    # The model whose image reference the present image stands for.
    Column("image_revision", Integer, nullable=False, server_default="1"),
    Column("rollout_asked_at", Moment),  # the newest model is to be rolled out
    Column("rollout_version", String(32)),  # none: with the image that the set has by then
    Column("rollout_digest", String(64)),
)

model = Table(
    "model",
    metadata,
    Column("scale_set", ForeignKey("scale_set.name", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
)

instance = Table(
    "instance",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("scale_set", ForeignKey("scale_set.name", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("wanted", String(16), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("mac", String(17), nullable=False, unique=True),
    Column("ssh_port", Integer, nullable=False),
    Column("agent_port", Integer, nullable=False),
    Column("probe_port", Integer, nullable=False),
    Column("address", String(15), unique=True),
    Column("host_key", Text, nullable=False),
    Column("host_key_public", Text, nullable=False),
    Column("agent_token", String(64), nullable=False),
    Column("health", String(16), nullable=False),
    Column("health_since", Moment),
    Column("health_detail", Text, nullable=False, default=""),
    Column("custom_metrics", Text, nullable=False, default="", server_default=""),
    Column("restart_asked_at", Moment),
    Column("rerun_custom_data_asked_at", Moment),
    Column("protect_from_scale_in", Boolean, nullable=False, default=False),
    Column("protect_from_scale_set_actions", Boolean, nullable=False, default=False),
    Column("created_at", Moment, nullable=False),
    Column("drained_at", Moment),
    Column("out_of_service_since", Moment),
    Column("hook_failed_kind", String(16)),
    Column("hook_failed_at", Moment),
    Column("hook_failed_message", Text),
    Column("hook_tries", Integer, nullable=False, default=0, server_default="0"),
    UniqueConstraint("scale_set", "ordinal"),
)

port = Table(  # one row for each port that was given out, so that no two instances share one
    "port",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("instance", ForeignKey("instance.name", ondelete="CASCADE"), nullable=False),
)

generation = Table(
    "generation",
    metadata,
    Column("instance", ForeignKey("instance.name", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("image_version", String(32), nullable=False),
    Column("image_digest", String(64), nullable=False),
    Column("model_revision", Integer, nullable=False),
    Column("prepared", Boolean, nullable=False, default=False),
    Column("started_at", Moment),
    Column("console_offset", Integer, nullable=False, default=0),  # bytes, at the latest power-on
    Column("ready_at", Moment),
    Column("failure_rung", String(16)),
    Column("failure_message", Text),
    Column("failure_at", Moment),
    Column("evidence_at", Moment),
    Column("created_at", Moment, nullable=False),
)

extension_run = Table(
    "extension_run",
    metadata,
    Column("instance", ForeignKey("instance.name", ondelete="CASCADE"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("name", String(80), primary_key=True),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("exit_code", Integer),
    Column("output", Text, nullable=False, default=""),
    Column("fault", String(16)),
    Column("tag", String(80)),
)

data_disk = Table(  # not tied to `instance`: data disks outlive instances
    "data_disk",
    metadata,
    Column("scale_set", String(40), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("name", String(12), primary_key=True),
    Column("path", Text, nullable=False, unique=True),
    Column("serial", String(20), nullable=False),
    Column("size", Integer, nullable=False),
    Column("is_made", Boolean, nullable=False, default=False),
    Column("created_at", Moment, nullable=False),
)

upgrade = Table(
    "upgrade",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("scale_set", String(40), nullable=False, index=True),
    Column("started_by", String(16), nullable=False),
    Column("target_version", String(32), nullable=False),
    Column("target_digest", String(64), nullable=False),
    Column("model_revision", Integer, nullable=False),
    Column("policy", Text, nullable=False),
    Column("health_timeout", Integer, nullable=False),  # milliseconds
    Column("restores", Boolean, nullable=False),
    Column("code", String(16), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("cancel_asked_at", Moment),
    Column("batch_ended_at", Moment),
    Column("batches", Integer, nullable=False, default=0),
    Column("error_code", String(80)),
    Column("error_message", Text),
    Column("purpose", String(16), nullable=False, server_default="OsImage"),
    Column("paused_at", Moment),
    Column("control", Text, nullable=False, default="{}", server_default="{}"),
    Column("approval_asked_at", Moment),
    Column("approved_batch", Integer, nullable=False, default=0, server_default="0"),
    Column("cancel_reason", Text, nullable=False, default="", server_default=""),
    Column("end_reason", Text, nullable=False, default="", server_default=""),
    Column("ignores_windows", Boolean, nullable=False, default=False, server_default="0"),
)

member = Table(
    "upgrade_member",
    metadata,
    Column("upgrade", ForeignKey("upgrade.id", ondelete="CASCADE"), primary_key=True),
    Column("instance", String(48), primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("batch", Integer),
    Column("from_generation", Integer),
    Column("to_generation", Integer),
    Column("from_version", String(32), nullable=False, default=""),
    Column("phase", Integer),
    Column("skips_upgrade", Boolean, nullable=False, default=False, server_default="0"),
    Column("admitted_at", Moment),
    Column("stopped_at", Moment),
    Column("settled_at", Moment),
    Column("healthy_at", Moment),
    Column("ended_at", Moment),
    Column("message", Text, nullable=False, default=""),
    Column("from_model", Integer),
    Column("replaced_by", String(48)),  # by maxSurge
)

hook_run = Table(  # not tied to `instance`: what a drain said is kept when the instance is gone
    "hook_run",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("scale_set", String(40), nullable=False),
    Column("instance", String(48), nullable=False, index=True),
    Column("upgrade", Integer, index=True),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("exit_code", Integer),
    Column("has_failed", Boolean, nullable=False, default=False),
    Column("message", Text, nullable=False, default=""),
    Column("output", Text, nullable=False, default=""),
)

receiver = Table(  # not tied to `scale_set`: told the end of a set that is gone
    "receiver",
    metadata,
    Column("scale_set", String(40), primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("spec", Text, nullable=False),
    Column("told", Integer, nullable=False),  # the last event that it was told, or did not want
    Column("told_at", Moment),
    Column("failures", Integer, nullable=False, default=0),  # in a row
    Column("failed_at", Moment),
    Column("error", Text, nullable=False, default=""),
)

repair = Table(  # not tied to `instance`: a replaced instance is another one of its ordinal
    "repair",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("scale_set", String(40), nullable=False, index=True),
    Column("instance", String(48), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ended_at", Moment),
    Column("outcome", String(16)),
    Column("message", Text, nullable=False, default=""),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    Column("scale_set", String(40), nullable=False, index=True),
    Column("instance", String(48)),
    Column("upgrade", Integer),
    Column("kind", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text, nullable=False, default="{}"),
)

image_definition = Table(
    "image_definition",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("os_type", String(16), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
)

image_version = Table(
    "image_version",
    metadata,
    Column("definition", ForeignKey("image_definition.name"), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("file_size", Integer, nullable=False),
    Column("virtual_size", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("published_at", Moment),
    Column("excluded_from_latest", Boolean, nullable=False, default=False),
    Column("end_of_life", Moment),
    Column("build_id", String(64), nullable=False, default=""),
    Column("source", Text, nullable=False, default=""),
)

image_replica = Table(  # a version without a row may be used in every region
    "image_replica",
    metadata,
    Column("definition", String(40), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("region", String(40), primary_key=True),
    Column("replicated_at", Moment, nullable=False),
    Column("excluded_from_latest", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(
        ["definition", "version"],
        ["image_version.definition", "image_version.version"],
        ondelete="CASCADE",
    ),
)

setting = Table(  # what `labctl serve` was started with, so that other commands can tell when
    "setting",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

arm_resource = Table(  # what Azure's clients have made, see `arm_resources.py`
    "arm_resource",
    metadata,
    Column("key", Text, primary_key=True),  # the id in lower case
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("type_key", Text, nullable=False, index=True),
    Column("group_key", String(90), index=True),
    Column("name", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
)

operation = Table(  # long-running operations of the API
    "operation",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("resource", Text, nullable=False),
    Column("resource_key", Text, nullable=False, index=True),
    Column("scale_set", String(40), index=True),
    Column("goal", Text, nullable=False, default="{}"),
    Column("who", String(80), nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("error", Text),
    Column("result", Text),
)

access_token = Table(
    "access_token",
    metadata,
    Column("id", String(36), primary_key=True),  # the client id for OAuth
    Column("name", String(80), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # sha256 of the secret
    Column("scope", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    Column("who", String(80), nullable=False),
    Column("address", String(64), nullable=False),
    Column("method", String(16), nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String(80), nullable=False),
    Column("request_id", String(36), nullable=False),
)
