"""Protects instances from scale-in and from what is done to the whole scale set."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.model.instance import Instance, Wanted
from labctl.store.events import add_event
from labctl.store.instances import change_instance, find_scale_set_of, load_instances
from labctl.store.upgrades import find_running_upgrade


def protect(
    connection: Connection,
    names: Sequence[str],
    *,
    scale_in: bool | None = None,
    actions: bool | None = None,
    now: datetime,
) -> list[str]:
    """Set either protection on or off, None leaves it; returns those that were changed.

    Raises RefusedError, before any change, where scale set actions alone would be kept off.
    """
    owners = {name: find_scale_set_of(connection, name) for name in names}
    found = {
        instance.name: instance
        for scale_set in set(owners.values())
        for instance in load_instances(connection, scale_set)
        if instance.name in owners
    }
    wanted = {
        name: (
            instance.protect_from_scale_in if scale_in is None else scale_in,
            instance.protect_from_scale_set_actions if actions is None else actions,
        )
        for name, instance in found.items()
    }
    for name, (from_scale_in, from_actions) in wanted.items():
        if found[name].wanted is Wanted.DELETED:
            raise RefusedError(f"instance {name!r} is being deleted")
        if from_scale_in and name in _find_newcomers(connection, owners[name]):
            raise RefusedError(
                f"instance {name!r} cannot be protected yet: it comes for another one",
                detail="if it does not become healthy it is deleted, and the old one stays",
                hint="protect it when its batch is through; to see: labctl upgrade status "
                + owners[name],
            )
        if from_actions and not from_scale_in:
            raise RefusedError(
                f"{name}: protection from scale set actions needs protection from scale-in",
                detail="an instance that upgrades must not touch could be deleted otherwise",
                hint=f"run: labctl instance protect {name} --from-scale-in --from-scale-set-actions"
                if scale_in is None
                else f"run: labctl instance unprotect {name}",
            )
    changed = []
    for name, (from_scale_in, from_actions) in wanted.items():
        instance = found[name]
        before = (instance.protect_from_scale_in, instance.protect_from_scale_set_actions)
        if before == (from_scale_in, from_actions):
            continue
        change_instance(
            connection,
            name,
            protect_from_scale_in=from_scale_in,
            protect_from_scale_set_actions=from_actions,
        )
        add_event(
            connection,
            at=now,
            scale_set=owners[name],
            instance=name,
            kind=EventKind.REQUEST,
            message=f"protected from {describe(from_scale_in, from_actions)}"
            if from_scale_in
            else "protected from nothing any more",
        )
        changed.append(name)
    return changed


def _find_newcomers(connection: Connection, scale_set: str) -> set[str]:
    """New instances of a running upgrade that have not proven themselves."""
    upgrade = find_running_upgrade(connection, scale_set)
    members = () if upgrade is None else upgrade.members
    return {m.replaced_by for m in members if m.replaced_by and m.state.is_moving}


def describe(from_scale_in: bool, from_actions: bool) -> str:  # noqa: FBT001 - one cell of a table
    """What it is protected from, in words; empty for nothing."""
    if from_actions:
        return "scale-in, scale set actions"
    return "scale-in" if from_scale_in else ""


def refuse_fewer_than_protected(instances: Sequence[Instance], name: str, capacity: int) -> None:
    """Raise RefusedError, with names, for a capacity that would take a protected instance."""
    protected = [
        i.name for i in instances if i.protect_from_scale_in and i.wanted is not Wanted.DELETED
    ]
    if capacity < len(protected):
        raise RefusedError(
            f"the capacity of {name!r} cannot be {capacity}: {len(protected)} of its instances are "
            "protected from scale-in",
            detail=f"protected: {', '.join(protected)}",
            hint=f"run: labctl instance unprotect {protected[-1]}; or choose at least "
            f"{len(protected)}",
        )
