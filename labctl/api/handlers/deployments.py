"""Deployments of templates: validated, foretold, begun, shown, canceled."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.deploy import begin, save_document
from labctl.api.deployments import (
    ACTIVE,
    DEPLOYMENT,
    DEPLOYMENT_TYPE,
    find_active,
    get_called,
    get_deployment,
    hide_secrets,
    make_id,
    make_properties,
    read_wish,
    refuse_all,
    refuse_unknown,
    render,
)
from labctl.api.desk import Desk
from labctl.api.errand import Errand
from labctl.api.groups import check_group
from labctl.api.query import cut, read_filter
from labctl.api.rehearsed import Rehearsed, rehearse_all, tell_changes
from labctl.api.respond import RETRY_AFTER, answer_page, make_link
from labctl.api.route import Route, Routes
from labctl.arm.errors import conflict, invalid
from labctl.arm.template import Template
from labctl.model.access import Scope
from labctl.store.arm_resources import (
    find_resource,
    load_resources,
    remove_resource,
    save_resource,
)
from labctl.store.operations import add_operation
from labctl.store.rehearsal import Rehearsal

Json = Any  # what json.loads gives

MOST = 200  # deployments of a group that are remembered; Azure remembers 800

# All routes of the API, of which these are some.
FindRoutes = Callable[[], Routes]


def put_deployment(find_routes: FindRoutes, desk: Desk, call: Call) -> Answer:
    """Begin to deploy a template; nothing is changed when it cannot be meant."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"], is_written=True)
    wish, _ = read_wish(desk, call, group)
    template = wish.read()
    _rehearse(wish.make_errand(desk, find_routes(), call.now), template)
    name = call.parameters["name"]
    with desk.database.write() as connection:
        check_group(connection, desk, group.name, is_written=True)
        identifier = make_id(desk, group.name, name)
        before = find_resource(connection, identifier)
        if find_active(connection, before) is not None:
            raise conflict(
                f"Unable to edit or replace deployment '{name}': it is still active. Wait for its "
                "end, cancel it, or take another name.",
                code="DeploymentActive",
                target=name,
            )
        operation = add_operation(
            connection,
            kind=DEPLOYMENT,
            resource=identifier,
            goal=wish.goal,
            who=call.principal.name,
            now=call.now,
        )
        properties = {
            **make_properties(wish, template),
            "provisioningState": "Accepted",
            "timestamp": call.now.isoformat(),
            "duration": "PT0S",
        }
        save_resource(
            connection,
            identifier,
            type=DEPLOYMENT_TYPE,
            group=group.key,
            name=name,
            document={
                "properties": properties,
                "tags": wish.tags,
                "template": hide_secrets(wish.template),
                "operation": operation.id,
                "resources": begin(template),
            },
            now=call.now,
        )
        _forget_oldest(connection, group.key)
        row = get_deployment(connection, desk, group.name, name)
        body = render(connection, row)
    return Answer(
        status=201 if before is None else 200,
        body=body,
        headers={
            "Azure-AsyncOperation": make_link(
                call,
                f"{row.id}/operationStatuses/{operation.id}",
                {"api-version": call.api_version},
            ),
            "Retry-After": str(RETRY_AFTER),
        },
    )


def validate(find_routes: FindRoutes, desk: Desk, call: Call) -> Answer:
    """Would this deployment be taken? Everything is tried, and nothing of it kept."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"], is_written=True)
    wish, _ = read_wish(desk, call, group)
    template = wish.read()
    errand = wish.make_errand(desk, find_routes(), call.now)
    rehearsed = _rehearse(errand, template)
    name = call.parameters["name"]
    return Answer(
        body={
            "id": make_id(desk, group.name, name),
            "name": name,
            "type": DEPLOYMENT_TYPE,
            "properties": {
                **make_properties(wish, template),
                "provisioningState": "Succeeded",
                "timestamp": call.now.isoformat(),
                "duration": "PT0S",
                "validatedResources": [{"id": each.resource.id} for each in rehearsed],
            },
        }
    )


def tell_what_if(find_routes: FindRoutes, desk: Desk, call: Call) -> Answer:
    """What a deployment would change."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"], is_written=True)
    wish, properties = read_wish(desk, call, group)
    settings = properties.get("whatIfSettings") or {}
    form = settings.get("resultFormat", "") if isinstance(settings, dict) else None
    if form not in ("", None, "FullResourcePayloads", "ResourceIdOnly"):
        raise invalid(
            "'resultFormat' is FullResourcePayloads or ResourceIdOnly.",
            target="properties.whatIfSettings.resultFormat",
        )
    template = wish.read()
    errand = wish.make_errand(desk, find_routes(), call.now)
    rehearsed = _rehearse(errand, template)
    changes = tell_changes(errand, rehearsed, group.key, has_payloads=form != "ResourceIdOnly")
    return Answer(
        body={
            "status": "Succeeded",
            "properties": {"correlationId": wish.setting.seed, "changes": changes},
        }
    )


def get_one(desk: Desk, call: Call) -> Answer:
    """One deployment."""
    with desk.database.read() as connection:
        return Answer(body=render(connection, get_called(connection, desk, call)))


def look_for_one(desk: Desk, call: Call) -> Answer:
    """204 when it is there, 404 when not."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        found = find_resource(connection, make_id(desk, group.name, call.parameters["name"]))
    return Answer(status=404 if found is None else 204)


def list_all(desk: Desk, call: Call) -> Answer:
    """The deployments of a group, the newest first."""
    wanted = read_filter(call, "provisioningState").get("provisioningstate", "").lower()
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        rows = load_resources(connection, type=DEPLOYMENT_TYPE, group=group.key)
        rows.sort(key=lambda row: row.changed_at, reverse=True)
        found = [render(connection, row) for row in rows]
    if wanted:
        found = [e for e in found if e["properties"]["provisioningState"].lower() == wanted]
    return answer_page(call, cut(call, found))


def delete_one(desk: Desk, call: Call) -> Answer:
    """Forget a deployment; what it made stays."""
    with desk.database.write() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        identifier = make_id(desk, group.name, call.parameters["name"])
        row = find_resource(connection, identifier)
        if find_active(connection, row) is not None:
            raise conflict(
                f"The deployment '{call.parameters['name']}' is still active; cancel it before.",
                code="DeploymentActive",
            )
        remove_resource(connection, identifier)
    return Answer(status=204)


def cancel(desk: Desk, call: Call) -> Answer:
    """Begin nothing more of a deployment; what has begun goes on."""
    with desk.database.write() as connection:
        row = get_called(connection, desk, call)
        if find_active(connection, row) is None:
            state = render(connection, row)["properties"]["provisioningState"]
            raise conflict(
                f"The deployment '{row.name}' cannot be cancelled, because it is not active; its "
                f"state is '{state}'.",
                code="DeploymentCannotBeCancelled",
            )
        properties = {
            **row.document["properties"],
            "provisioningState": "Canceled",
            "timestamp": call.now.isoformat(),
            "error": {
                "code": "DeploymentCanceled",
                "message": f"The deployment was canceled by '{call.principal.name}'.",
            },
        }
        save_document(connection, row, {**row.document, "properties": properties}, call.now)
    return Answer(status=204)


def export_template(desk: Desk, call: Call) -> Answer:
    """The template that was deployed, without secrets that it spells out."""
    with desk.database.read() as connection:
        return Answer(body={"template": get_called(connection, desk, call).document["template"]})


def _forget_oldest(connection: Connection, group: str) -> None:
    """Clients take a new name for each deployment, so their number would only grow."""
    rows = load_resources(connection, type=DEPLOYMENT_TYPE, group=group)
    rows.sort(key=lambda row: row.changed_at)
    for row in rows[: max(len(rows) - MOST, 0)]:
        if find_active(connection, row) is None:
            remove_resource(connection, row.id)


def _rehearse(errand: Errand, template: Template) -> list[Rehearsed]:
    """What would come of it. Raises ArmError for what is known to fail."""
    refuse_unknown(errand, template)
    if isinstance(errand.desk.database, Rehearsal):
        return []  # a template in a template in a rehearsal: it is looked at, but not tried
    rehearsed = rehearse_all(errand, template)
    refuse_all([each.error for each in rehearsed if each.error is not None], template)
    return rehearsed


_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_ALL = f"{_GROUP}/providers/{DEPLOYMENT_TYPE}"
_ONE = f"{_ALL}/{{name}}"
_REQUEST = {
    "type": "object",
    "required": ["properties"],
    "properties": {
        "properties": {
            "type": "object",
            "required": ["template"],
            "properties": {
                "mode": {"enum": ["Incremental"]},
                "template": {"type": "object"},
                "parameters": {"type": "object"},
            },
        }
    },
}
_STATES = [*sorted(ACTIVE), "Canceled", "Failed", "Succeeded"]
_RESPONSE = {
    "type": "object",
    "required": ["id", "name", "type", "properties"],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "type": {"type": "string"},
        "properties": {
            "type": "object",
            "required": ["provisioningState"],
            "properties": {"provisioningState": {"enum": _STATES}},
        },
    },
}
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "items": {"type": "object"}}},
}
_OBJECT = {"type": "object"}
_TOP = {"$top": "how many"}


def make_deployment_routes(find_routes: FindRoutes) -> tuple[Route, ...]:
    """The routes; deployments call the others, so they are told where to find them."""
    return (
        Route(
            method="GET",
            path=_ALL,
            handler=list_all,
            summary="List the deployments of a resource group",
            query={"$filter": "provisioningState eq 'VALUE'", **_TOP},
            response=_LIST,
        ),
        Route(
            method="GET",
            path=_ONE,
            handler=get_one,
            summary="Show a deployment",
            response=_RESPONSE,
        ),
        Route(
            method="HEAD",
            path=_ONE,
            handler=look_for_one,
            summary="Is there such a deployment?",
            statuses=(204,),
        ),
        Route(
            method="PUT",
            path=_ONE,
            handler=partial(put_deployment, find_routes),
            scope=Scope.OPERATE,
            summary="Deploy a template",
            request=_REQUEST,
            response=_RESPONSE,
            statuses=(200, 201),
        ),
        Route(
            method="DELETE",
            path=_ONE,
            handler=delete_one,
            scope=Scope.OPERATE,
            summary="Forget a deployment; what it made stays",
            statuses=(204,),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/validate",
            handler=partial(validate, find_routes),
            scope=Scope.OPERATE,
            summary="Would this deployment be taken?",
            request=_REQUEST,
            response=_RESPONSE,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/whatIf",
            handler=partial(tell_what_if, find_routes),
            scope=Scope.OPERATE,
            summary="What would this deployment change?",
            request=_REQUEST,
            response=_OBJECT,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/cancel",
            handler=cancel,
            scope=Scope.OPERATE,
            summary="Begin nothing more of a deployment",
            statuses=(204,),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/exportTemplate",
            handler=export_template,
            scope=Scope.OPERATE,
            summary="The template that was deployed, without secrets",
            response=_OBJECT,
        ),
    )
