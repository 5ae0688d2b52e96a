"""Scale sets: made, changed, shown, listed, deleted."""

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.groups import check_group
from labctl.api.handlers.schemas import (
    BASE,
    OBJECT,
    RESOURCE,
    SCALE_SET,
    SET,
    SKIP_TOKEN,
    TEXT,
    make_list,
    make_object,
)
from labctl.api.respond import accept, answer_page, check_conditions
from labctl.api.route import Route
from labctl.api.scale_set_documents import Written, is_rolled_out, load_spec, show_set, write_set
from labctl.api.scale_set_ids import (
    SET_TYPE,
    FoundSet,
    find_called_set,
    find_set_by_name,
    load_sets,
    make_new_set_id,
)
from labctl.api.wishes import add_ended, add_open
from labctl.arm.errors import ArmError, Document, invalid
from labctl.arm.sizes import AZURE_SIZES
from labctl.controller.desired import delete_scale_set
from labctl.controller.repair_service import resume, suspend
from labctl.controller.set_operations import SET_APPLY, SET_DELETE
from labctl.model.access import Scope
from labctl.store.operations import Operation, OperationStatus, find_last_of_kind

_LARGEST = 1000  # instances, the bound of the spec
_REPAIRS = "AutomaticRepairs"


def put_set(desk: Desk, call: Call) -> Answer:
    """Make a scale set, or merge a document over one: what clients leave out stays."""
    body = call.read_document()
    group, name = call.parameters["group"], call.parameters["name"]
    with desk.database.write() as connection:
        check_group(connection, desk, group)
        found = find_set_by_name(connection, desk, name)
        if found is not None and (found.id.group or "").lower() != group.lower():
            found = None  # `make_new_set_id` tells where it is
        check_conditions(call, _find_present_etag(connection, desk, found))
        identifier = make_new_set_id(connection, desk, group, name) if found is None else found.id
        written = write_set(connection, desk, call, identifier, found, body)
        operation = record_apply(connection, call, written, resource=str(identifier))
        shown = show_set(connection, desk, written.found)
    return _accept(desk, call, operation, shown, status=200 if found else 201)


def patch_set(desk: Desk, call: Call) -> Answer:
    """Merge a part of a document over a scale set."""
    body = call.read_document()
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        check_conditions(call, _find_present_etag(connection, desk, found))
        written = write_set(connection, desk, call, found.id, found, body)
        operation = record_apply(connection, call, written, resource=str(found.id))
        shown = show_set(connection, desk, written.found)
    return _accept(desk, call, operation, shown, status=200)


def get_set(desk: Desk, call: Call) -> Answer:
    """One scale set."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        shown = show_set(connection, desk, found)
    return Answer(body=shown, headers={"ETag": str(shown["etag"])})


def list_sets(desk: Desk, call: Call) -> Answer:
    """The scale sets of a resource group, or of the lab."""
    group = call.parameters.get("group")
    with desk.database.read() as connection:
        if group is not None:
            check_group(connection, desk, group)
        found = load_sets(connection, desk, group)
        return answer_page(call, found, render=lambda each: show_set(connection, desk, each))


def delete_set(desk: Desk, call: Call) -> Answer:
    """Delete a scale set with its instances; data disks stay."""
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"])
        try:
            found = find_called_set(connection, desk, call.parameters)
        except ArmError:
            check_conditions(call, None)
            return Answer(status=204)  # as Azure answers: there is nothing to delete
        check_conditions(call, _find_present_etag(connection, desk, found))
        location = load_spec(connection, found).region
        delete_scale_set(connection, found.name, now=call.now)
        operation = add_open(
            connection,
            SET_DELETE,
            resource=str(found.id),
            scale_set=found.name,
            method="DELETE",
            who=call.principal.name,
            now=call.now,
        )
    return accept(desk, call, operation, location=location)


def list_skus(desk: Desk, call: Call) -> Answer:
    """The sizes that the scale set could have, its own first."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        sku: Document = dict(show_set(connection, desk, found)["sku"])  # type: ignore[call-overload]
    present = str(sku["name"])
    names = [present, *(name for name in AZURE_SIZES if name != present)]
    return answer_page(call, names, render=_render_sku)


def set_service_state(desk: Desk, call: Call) -> Answer:
    """Suspend or resume automatic repairs."""
    body = call.read_document()
    service, action = body.get("serviceName"), body.get("action")
    if service != _REPAIRS:
        raise invalid(
            f"'serviceName' must be '{_REPAIRS}', the one service that a lab has, not "
            f"{str(service)[:60]!r}.",
            target="serviceName",
        )
    if action not in ("Suspend", "Resume"):
        raise invalid(
            f"'action' must be 'Suspend' or 'Resume', not {str(action)[:60]!r}.", target="action"
        )
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        if action == "Suspend":
            reason = f"asked for by {call.principal.name}"
            suspend(connection, found.name, reason=reason, now=call.now)
        else:
            resume(connection, found.name, now=call.now)
        location = load_spec(connection, found).region
        operation = add_ended(
            connection,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
        )
    return accept(desk, call, operation, location=location)


def record_apply(
    connection: Connection, call: Call, written: Written, *, resource: str
) -> Operation:
    """The operation that waits for a changed model; over at once where nothing has changed."""
    found, goal = written.found, written.goal
    spec = load_spec(connection, found)
    is_quiet = not written.applied.changes and not is_rolled_out(written.applied, spec)
    if is_quiet and not written.applied.created:
        last = find_last_of_kind(connection, found.name, SET_APPLY, since=found.row.created_at)
        if last is None or last.status is OperationStatus.SUCCEEDED:
            return add_ended(
                connection,
                resource=resource,
                scale_set=found.name,
                method=call.method,
                who=call.principal.name,
                now=call.now,
            )
        # What the last change was not through with, or failed at, is what this one waits for.
        goal = {**goal, **{key: last.goal.get(key) for key in ("since", "revision", "after")}}
    return add_open(
        connection,
        SET_APPLY,
        resource=resource,
        scale_set=found.name,
        method=call.method,
        who=call.principal.name,
        now=call.now,
        goal=goal,
    )


def _find_present_etag(connection: Connection, desk: Desk, found: FoundSet | None) -> str | None:
    return None if found is None else str(show_set(connection, desk, found)["etag"])


def _accept(
    desk: Desk, call: Call, operation: Operation, shown: Document, *, status: int
) -> Answer:
    answer = accept(
        desk, call, operation, status=status, body=shown, location=str(shown["location"])
    )
    headers = {**answer.headers, "ETag": str(shown["etag"])}
    return Answer(status=status, body=shown, headers=headers)


def _render_sku(name: str) -> Document:
    return {
        "resourceType": SET_TYPE,
        "sku": {"name": name, "tier": "Standard"},
        "capacity": {
            "minimum": 0,
            "maximum": _LARGEST,
            "defaultCapacity": 1,
            "scaleType": "Automatic",
        },
    }


_REQUEST = make_object(
    location=TEXT,
    tags=OBJECT,
    sku=make_object(name=TEXT, capacity={"type": "integer", "minimum": 0, "maximum": _LARGEST}),
    properties=OBJECT,
)
_CONDITIONS = "; If-Match and If-None-Match are regarded"

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachineScaleSets",
        handler=list_sets,
        summary="List the scale sets of the lab",
        is_kept=True,
        query=SKIP_TOKEN,
        response=make_list(SCALE_SET),
    ),
    Route(
        method="GET",
        path=BASE,
        handler=list_sets,
        summary="List the scale sets of a resource group",
        is_kept=True,
        query=SKIP_TOKEN,
        response=make_list(SCALE_SET),
    ),
    Route(
        method="GET",
        path=SET,
        handler=get_set,
        summary="Show a scale set",
        is_kept=True,
        query={"$expand": "Has no effect"},
        response=SCALE_SET,
    ),
    Route(
        method="PUT",
        path=SET,
        handler=put_set,
        scope=Scope.OPERATE,
        summary=f"Make a scale set, or merge a document over one{_CONDITIONS}",
        request=_REQUEST,
        response=SCALE_SET,
        statuses=(200, 201),
    ),
    Route(
        method="PATCH",
        path=SET,
        handler=patch_set,
        scope=Scope.OPERATE,
        summary=f"Change a scale set{_CONDITIONS}",
        request=_REQUEST,
        response=SCALE_SET,
    ),
    Route(
        method="DELETE",
        path=SET,
        handler=delete_set,
        scope=Scope.OPERATE,
        summary="Delete a scale set with its instances; data disks stay",
        query={"forceDeletion": "Has no effect"},
        statuses=(202, 204),
    ),
    Route(
        method="GET",
        path=f"{SET}/skus",
        handler=list_skus,
        summary="List the sizes that the instances could have",
        query=SKIP_TOKEN,
        response=make_list(OBJECT),
    ),
    Route(
        method="POST",
        path=f"{SET}/setOrchestrationServiceState",
        handler=set_service_state,
        scope=Scope.OPERATE,
        summary="Suspend or resume automatic repairs",
        request=make_object(
            ("serviceName", "action"),
            serviceName={"enum": [_REPAIRS]},
            action={"enum": ["Suspend", "Resume"]},
        ),
        statuses=(202,),
    ),
)

__all__ = ["RESOURCE", "ROUTES", "record_apply"]
