"""What can be asked of instances: power, fresh OS disks, the newest model, deletion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.handlers.schemas import INSTANCE, INSTANCE_IDS, SET
from labctl.api.instance_ids import choose_all, names_all, read_instance_ids
from labctl.api.judging import find_key
from labctl.api.power import note_power
from labctl.api.respond import accept
from labctl.api.route import Route
from labctl.api.scale_set_ids import (
    FoundSet,
    find_called_set,
    make_instance_id,
)
from labctl.api.wishes import add_open
from labctl.arm.errors import conflict, invalid, not_supported
from labctl.controller.desired import reimage, restart, set_wanted
from labctl.controller.models import update_instances
from labctl.controller.removal import remove_instances
from labctl.controller.set_operations import INSTANCES_APPLY, INSTANCES_DELETE
from labctl.model.access import Scope
from labctl.model.instance import Instance, Wanted
from labctl.store.instances import load_instances
from labctl.store.scale_sets import load_models

Json = Any  # what json.loads gives

# Records a wish for these instances; returns those that are waited for.
Record = Callable[[Connection, str, Sequence[str], datetime], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One POST, on instances of a scale set or on a single one."""

    name: str  # the last part of the path
    record: Record
    summary: str
    refused: Mapping[str, str] | None = None  # keys of the body or the query, and why not


def _start(connection: Connection, _: str, names: Sequence[str], now: datetime) -> Sequence[str]:
    set_wanted(connection, names, Wanted.RUNNING, now=now)
    return names


def _stop(connection: Connection, _: str, names: Sequence[str], now: datetime) -> Sequence[str]:
    set_wanted(connection, names, Wanted.STOPPED, now=now)
    return names


def _restart(connection: Connection, _: str, names: Sequence[str], now: datetime) -> Sequence[str]:
    restart(connection, names, now=now)
    return names


def _reimage(connection: Connection, _: str, names: Sequence[str], now: datetime) -> Sequence[str]:
    reimage(connection, names, now=now)
    return names


_EXACT = {"exactVersion": "instances are reimaged with the version that they have"}
_HIBERNATE = {"hibernate": "instances of a lab cannot hibernate"}

ACTIONS = (
    Action(name="start", record=_start, summary="Start instances that were stopped"),
    Action(
        name="powerOff",
        record=_stop,
        summary="Shut instances down and keep them so",
        refused=_HIBERNATE,
    ),
    Action(
        name="deallocate",
        record=_stop,
        summary="As powerOff: what is off takes nothing of the host but its disks",
        refused=_HIBERNATE,
    ),
    Action(name="restart", record=_restart, summary="Shut instances down and start them again"),
    Action(
        name="reimage",
        record=_reimage,
        summary="Replace OS disks by fresh ones of the same image; data disks stay",
        refused=_EXACT,
    ),
    Action(
        name="reimageall",
        record=_reimage,
        summary="The same as reimage: data disks are never rewritten in a lab",
        refused=_EXACT,
    ),
)
_REFUSED = {
    "redeploy": "a lab has one host, so there is no other one to move instances to",
    "performMaintenance": "a lab plans no maintenance of its host",
    "simulateEviction": "nothing is evicted from a lab",
}
_REFUSED_OF_SETS = {
    "convertToSinglePlacementGroup": "a lab has no placement groups",
    "forceRecoveryServiceFabricPlatformUpdateDomainWalk": "a lab has no Service Fabric; the "
    "manager of a cluster lets update domains go on by itself",
}


def act_on_set(desk: Desk, call: Call, action: Action) -> Answer:
    """Ask something of the instances that the body names, or of all."""
    body = _read_body(call, action)
    with desk.database.write() as connection:
        found = _find_present(connection, desk, call)
        instances = load_instances(connection, found.name)
        named = read_instance_ids(body, found, instances)
        names = choose_all(instances) if named is None else named
        _note_power(connection, found, names, instances, action, call)
        waited = action.record(connection, found.name, names, call.now) if names else ()
        location = find_location(connection, found)
        operation = add_open(
            connection,
            INSTANCES_APPLY,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
            goal={"instances": sorted(waited)},
        )
    return accept(desk, call, operation, location=location)


def act_on_instance(desk: Desk, call: Call, action: Action) -> Answer:
    """Ask something of one instance."""
    _read_body(call, action)
    with desk.database.write() as connection:
        found = _find_present(connection, desk, call)
        key = find_key(connection, found, call.parameters["instance"])
        instances = load_instances(connection, found.name, names=[key.name])
        _note_power(connection, found, [key.name], instances, action, call)
        waited = action.record(connection, found.name, [key.name], call.now)
        location = find_location(connection, found)
        operation = add_open(
            connection,
            INSTANCES_APPLY,
            resource=str(make_instance_id(found.id, key.ordinal)),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
            goal={"instances": list(waited)},
        )
    return accept(desk, call, operation, location=location)


def _read_required_ids(
    body: Json, found: FoundSet, instances: Sequence[Instance]
) -> list[str] | None:
    """The instances that are named; None: all, which has to be said."""
    named = read_instance_ids(body, found, instances)
    if named is None and not names_all(body):
        raise invalid(
            "'instanceIds' is required: name instances, or \"*\" for all.",
            target="instanceIds",
        )
    return named


def update_models(desk: Desk, call: Call) -> Answer:
    """Give the named instances the newest model, at once and without batches."""
    body = call.read_document()
    with desk.database.write() as connection:
        found = _find_present(connection, desk, call)
        instances = load_instances(connection, found.name)
        named = _read_required_ids(body, found, instances)
        chosen = (
            ()
            if named == []
            else update_instances(connection, found.name, named or [], now=call.now)
        )
        operation = add_open(
            connection,
            INSTANCES_APPLY,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
            goal={"instances": sorted(chosen)},
        )
        location = find_location(connection, found)
    return accept(desk, call, operation, location=location)


def delete_instances(desk: Desk, call: Call) -> Answer:
    """Delete the named instances; the capacity shrinks with them."""
    body = call.read_document()
    with desk.database.write() as connection:
        found = _find_present(connection, desk, call)
        instances = load_instances(connection, found.name)
        named = _read_required_ids(body, found, instances)
        names = [i.name for i in instances] if named is None else named
        return _delete(connection, desk, call, found, names, "POST")


def delete_instance(desk: Desk, call: Call) -> Answer:
    """Delete one instance; the capacity shrinks by one."""
    with desk.database.write() as connection:
        found = _find_present(connection, desk, call)
        key = find_key(connection, found, call.parameters["instance"])
        return _delete(connection, desk, call, found, [key.name], "DELETE")


def find_location(connection: Connection, found: FoundSet) -> str:
    """The region of a scale set."""
    return load_models(connection, found.name)[found.row.model_revision].region


def _note_power(
    connection: Connection,
    found: FoundSet,
    names: Sequence[str],
    instances: Sequence[Instance],
    action: Action,
    call: Call,
) -> None:
    deallocates = action.name == "deallocate"
    note_power(connection, found, names, instances, deallocates=deallocates, now=call.now)


def _delete(
    connection: Connection,
    desk: Desk,
    call: Call,
    found: FoundSet,
    names: Sequence[str],
    method: str,
) -> Answer:
    instances = {each.name: each for each in load_instances(connection, found.name)}
    remove_instances(connection, found.name, names, now=call.now)
    wanted = {name: instances[name].created_at.isoformat() for name in names}
    operation = add_open(
        connection,
        INSTANCES_DELETE,
        resource=str(found.id),
        scale_set=found.name,
        method=method,
        who=call.principal.name,
        now=call.now,
        goal={"instances": wanted},
    )
    return accept(desk, call, operation, location=find_location(connection, found))


def _find_present(connection: Connection, desk: Desk, call: Call) -> FoundSet:
    found = find_called_set(connection, desk, call.parameters)
    if found.row.is_deleting:
        raise conflict(
            f"The scale set '{found.id.name}' is being deleted; nothing else can be asked of it.",
            target=str(found.id),
        )
    return found


def _read_body(call: Call, action: Action) -> Mapping[str, Json]:
    body: Mapping[str, Json] = call.find_document() or {}
    for key, why in (action.refused or {}).items():
        given = body.get(key), call.query.get(key.lower())
        if any(value not in {None, False, "", "false", "False"} for value in map(_plain, given)):
            raise not_supported(f"'{key}' is not supported: {why}.", target=key)
    return body


def _plain(value: Json) -> Json:
    """Something that can be compared with what says no."""
    return value if value is None or isinstance(value, bool | str) else str(value)


def _make_refusal(name: str, why: str) -> Callable[[Desk, Call], Answer]:
    def refuse(desk: Desk, call: Call) -> Answer:
        with desk.database.read() as connection:
            found = find_called_set(connection, desk, call.parameters)
            if "instance" in call.parameters:
                find_key(connection, found, call.parameters["instance"])
        raise not_supported(f"'{name}' is not supported: {why}.", target=name)

    return refuse


def _bind(
    function: Callable[[Desk, Call, Action], Answer], action: Action
) -> Callable[[Desk, Call], Answer]:
    return lambda desk, call: function(desk, call, action)


ROUTES: tuple[Route, ...] = (
    *(
        Route(
            method="POST",
            path=f"{SET}/{action.name}",
            handler=_bind(act_on_set, action),
            scope=Scope.OPERATE,
            summary=f"{action.summary}; without instanceIds all of them",
            request=INSTANCE_IDS,
            statuses=(202,),
        )
        for action in ACTIONS
    ),
    *(
        Route(
            method="POST",
            path=f"{INSTANCE}/{action.name}",
            handler=_bind(act_on_instance, action),
            scope=Scope.OPERATE,
            summary=f"{action.summary}: this one",
            statuses=(202,),
        )
        for action in ACTIONS
    ),
    Route(
        method="POST",
        path=f"{SET}/manualupgrade",
        handler=update_models,
        scope=Scope.OPERATE,
        summary="Give instances the newest model at once",
        request=INSTANCE_IDS,
        statuses=(202,),
    ),
    Route(
        method="POST",
        path=f"{SET}/delete",
        handler=delete_instances,
        scope=Scope.OPERATE,
        summary="Delete instances; the capacity shrinks with them, data disks stay",
        query={"forceDeletion": "Has no effect"},
        request=INSTANCE_IDS,
        statuses=(202,),
    ),
    Route(
        method="DELETE",
        path=INSTANCE,
        handler=delete_instance,
        scope=Scope.OPERATE,
        summary="Delete an instance; the capacity shrinks by one, data disks stay",
        query={"forceDeletion": "Has no effect"},
        statuses=(202,),
    ),
    *(
        Route(
            method="POST",
            path=f"{base}/{name}",
            handler=_make_refusal(name, why),
            scope=Scope.OPERATE,
            summary=f"Refused: {why}",
        )
        for base, refused in ((SET, {**_REFUSED, **_REFUSED_OF_SETS}), (INSTANCE, _REFUSED))
        for name, why in refused.items()
    ),
)
