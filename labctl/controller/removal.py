"""Deletes chosen instances: the capacity shrinks with them, so that no others come for them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from labctl.controller.protection import refuse_fewer_than_protected
from labctl.errors import NotFoundError, RefusedError
from labctl.model.event import EventKind
from labctl.model.instance import Wanted
from labctl.model.instance_policy import RepairAction
from labctl.store.events import add_event
from labctl.store.instances import change_instance, load_instances, save_hook_failure
from labctl.store.repairs import load_recent_repairs
from labctl.store.scale_sets import get_scale_set, load_models, replace_model
from labctl.store.upgrades import find_running_upgrade


def remove_instances(
    connection: Connection, scale_set: str, names: Sequence[str], *, now: datetime
) -> tuple[str, ...]:
    """Want these instances no more; returns those that were not on their way out already.

    Their data disks are kept, as when a scale set scales in. Raises NotFoundError for an unknown
    one and RefusedError for one that is protected, before any change.
    """
    row = get_scale_set(connection, scale_set)
    if row.is_deleting:
        raise RefusedError(f"scale set {scale_set!r} is being deleted")
    instances = load_instances(connection, scale_set)
    known = {instance.name: instance for instance in instances}
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"scale set {scale_set!r} has no instance {name!r}",
                hint=f"run: labctl instance list {scale_set}",
            )
        if known[name].protect_from_scale_in and known[name].wanted is not Wanted.DELETED:
            raise RefusedError(
                f"instance {name!r} is protected from scale-in",
                hint=f"run: labctl instance unprotect {name}",
            )
    for repair in load_recent_repairs(connection, scale_set, since=row.created_at):
        if repair.is_open and repair.action is RepairAction.REPLACE and repair.instance in names:
            raise RefusedError(
                f"{repair.instance} is being replaced just now: {repair.reason}",
                hint=f"run it again when the new one is there; to see: labctl show {scale_set}",
            )
    upgrade = find_running_upgrade(connection, scale_set)
    for member in upgrade.members if upgrade else ():
        if (
            member.replaced_by is not None
            and member.state.is_moving
            and set(member.pair) & {*names}
        ):
            raise RefusedError(
                f"{member.instance} is being replaced by {member.replaced_by} just now",
                hint=f"run it again afterwards; to see: labctl upgrade watch {scale_set}",
            )
    chosen = tuple(
        name for name in dict.fromkeys(names) if known[name].wanted is not Wanted.DELETED
    )
    if not chosen:
        return ()
    spec = load_models(connection, scale_set)[row.model_revision]
    capacity = max(0, spec.capacity - len(chosen))
    rest = [instance for instance in instances if instance.name not in chosen]
    refuse_fewer_than_protected(rest, scale_set, capacity)
    replace_model(
        connection, spec.model_copy(update={"capacity": capacity}), revision=row.model_revision
    )
    for name in chosen:
        change_instance(connection, name, wanted=Wanted.DELETED.value)
        save_hook_failure(connection, name, None)  # its drain is tried now, not in an hour
        _note(connection, scale_set, "deletion asked for", now=now, instance=name)
    _note(connection, scale_set, f"capacity {spec.capacity} -> {capacity}", now=now)
    return chosen


def _note(
    connection: Connection,
    scale_set: str,
    message: str,
    *,
    now: datetime,
    instance: str | None = None,
) -> None:
    add_event(
        connection,
        at=now,
        scale_set=scale_set,
        instance=instance,
        kind=EventKind.REQUEST,
        message=message,
    )
