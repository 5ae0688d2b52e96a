"""Writes the decisions of automatic repairs into the store."""

from datetime import datetime
from typing import assert_never

from sqlalchemy import Connection

from labctl.model.event import EventKind
from labctl.model.instance import Instance, Wanted
from labctl.model.instance_policy import RepairAction
from labctl.model.notification import Topic
from labctl.model.plan import BeginRepair, EndRepair, ScaleSet, SuspendRepairs
from labctl.model.repair import RepairOutcome
from labctl.store.events import add_event
from labctl.store.instances import add_generation, change_instance, save_hook_failure
from labctl.store.repairs import end_repair, insert_repair, save_suspension


def record_repair(
    connection: Connection,
    scale_set: ScaleSet,
    decision: BeginRepair | EndRepair | SuspendRepairs,
    *,
    now: datetime,
) -> None:
    """Apply one decision in the running transaction; it leaves an event."""
    instance, kind, topic = None, EventKind.DECISION, Topic.REPAIR_STARTED
    message = decision.reason
    match decision:
        case BeginRepair():
            instance = decision.instance
            message = f"repair {_begin(connection, scale_set, decision, now=now)}: {message}"
        case EndRepair():
            instance = decision.instance
            end_repair(connection, decision.repair, decision.outcome, decision.reason, now=now)
            topic = Topic.REPAIR_ENDED
            message = f"repair {decision.repair} {decision.outcome.lower()}: {message}"
            if decision.outcome is RepairOutcome.FAILED:
                kind = EventKind.FAILURE
        case SuspendRepairs():
            save_suspension(connection, scale_set.name, reason=decision.reason, now=now)
            message = (
                f"automatic repairs suspended: {message}; to go on: "
                f"labctl repairs resume {scale_set.name}"
            )
            kind, topic = EventKind.WARNING, Topic.REPAIR_SUSPENDED
        case _:
            assert_never(decision)
    add_event(
        connection,
        at=now,
        scale_set=scale_set.name,
        instance=instance,
        kind=kind,
        message=message,
        topic=topic,
    )


def _begin(
    connection: Connection, scale_set: ScaleSet, decision: BeginRepair, *, now: datetime
) -> int:
    instance = next(i for i in scale_set.instances if i.name == decision.instance)
    match decision.action:
        case RepairAction.RESTART:
            change_instance(connection, instance.name, restart_asked_at=now)
        case RepairAction.REIMAGE:
            add_same_generation(connection, instance, now=now)
        case RepairAction.REPLACE:
            # Its ordinal is the lowest that is missing then, so it is created again at once.
            change_instance(connection, instance.name, wanted=Wanted.DELETED.value)
        case _:
            assert_never(decision.action)
    return insert_repair(
        connection,
        scale_set=scale_set.name,
        instance=instance.name,
        ordinal=instance.ordinal,
        action=decision.action,
        reason=decision.reason,
        now=now,
    )


def add_same_generation(connection: Connection, instance: Instance, *, now: datetime) -> int:
    """Ask for a fresh OS disk of the same image version and model; returns its number."""
    number = max(generation.number for generation in instance.generations) + 1
    add_generation(
        connection,
        instance.name,
        number=number,
        image_version=instance.current.image_version,
        image_digest=instance.current.image_digest,
        model_revision=instance.current.model_revision,
        now=now,
    )
    save_hook_failure(connection, instance.name, None)
    # The new OS disk boots and runs its custom data anyway, so older wishes are fulfilled by it.
    change_instance(
        connection, instance.name, restart_asked_at=None, rerun_custom_data_asked_at=None
    )
    return number
