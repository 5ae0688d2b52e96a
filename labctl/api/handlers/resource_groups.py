"""Resource groups: made, shown, changed, and deleted with what is in them."""

from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.api.group_delete import refuse_kept
from labctl.api.groups import (
    GROUP_DELETE,
    GROUP_TYPE,
    Group,
    check_group,
    find_group,
    load_groups,
    make_group_id,
)
from labctl.api.query import cut, has_tag, read_filter
from labctl.api.respond import accept, answer_page, check_conditions, make_etag
from labctl.api.route import Route
from labctl.arm.errors import ArmError, conflict, invalid
from labctl.arm.ids import check_group_name
from labctl.arm.tracked import merge_tags, read_location
from labctl.model.access import Scope
from labctl.store.arm_resources import save_resource
from labctl.store.operations import add_operation, load_open_operations

Json = Any  # what json.loads gives

_KNOWN = frozenset({"id", "location", "managedby", "name", "properties", "tags", "type"})


def list_groups(desk: Desk, call: Call) -> Answer:
    """All groups, or those with a tag."""
    wanted = read_filter(call, "tagName", "tagValue", "name", "location")
    with desk.database.read() as connection:
        groups = load_groups(connection, desk)
    groups = [each for each in groups if _is_wanted(each, wanted)]
    return answer_page(call, cut(call, groups), render=_render)


def get_group(desk: Desk, call: Call) -> Answer:
    """One group."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
    return _answer(group)


def look_for_group(desk: Desk, call: Call) -> Answer:
    """204 when it is there, 404 when not."""
    with desk.database.read() as connection:
        group = find_group(connection, desk, call.parameters["group"])
    return Answer(status=404 if group is None else 204)


def put_group(desk: Desk, call: Call) -> Answer:
    """Make a group, or give it other tags; its location stays."""
    name = call.parameters["group"]
    check_group_name(name)
    body = _read_body(call)
    location = read_location(body.get("location"))
    document = merge_tags({"location": location}, body.get("tags"))
    document |= _read_manager(body)
    with desk.database.write() as connection:
        group = find_group(connection, desk, name)
        check_conditions(call, None if group is None else _make_etag(group))
        if group is not None:
            check_group(connection, desk, name, is_written=True)
            if group.location != location:
                raise conflict(
                    f"Invalid resource group location '{location}'. The resource group "
                    f"'{group.name}' already exists in location '{group.location}'.",
                    code="InvalidResourceGroupLocation",
                    target="location",
                )
        is_new = save_resource(
            connection,
            make_group_id(desk, name) if group is None else group.id,
            type=GROUP_TYPE,
            group=None,
            name=name if group is None else group.name,
            document=document,
            now=call.now,
        )
        saved = check_group(connection, desk, name)
    return _answer(saved, status=201 if is_new and group is None else 200)


def patch_group(desk: Desk, call: Call) -> Answer:
    """Give a group other tags, or another manager."""
    body = _read_body(call)
    with desk.database.write() as connection:
        group = check_group(connection, desk, call.parameters["group"], is_written=True)
        check_conditions(call, _make_etag(group))
        document = dict(group.document) | _read_manager(body)
        if "tags" in body:
            document = merge_tags(document, body["tags"])
        if "location" in body and read_location(body["location"]) != group.location:
            raise conflict(
                f"The location of the resource group '{group.name}' is '{group.location}' and "
                "cannot be changed.",
                code="InvalidResourceGroupLocation",
                target="location",
            )
        save_resource(
            connection,
            group.id,
            type=GROUP_TYPE,
            group=None,
            name=group.name,
            document=document,
            now=call.now,
        )
        saved = check_group(connection, desk, group.name)
    return _answer(saved)


def delete_group(desk: Desk, call: Call) -> Answer:
    """Begin to delete a group and everything in it; data disks of scale sets are kept."""
    with desk.database.write() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        check_conditions(call, _make_etag(group))
        if group.key == DEFAULT_GROUP:
            raise conflict(
                f"The resource group '{DEFAULT_GROUP}' holds what was made without the API and "
                "cannot be deleted; delete what is in it.",
                target=DEFAULT_GROUP,
            )
        refuse_kept(connection, group)
        going = load_open_operations(connection, resource=group.id)
        operation = next((each for each in going if each.kind == GROUP_DELETE), None)
        if operation is None:
            operation = add_operation(
                connection,
                kind=GROUP_DELETE,
                resource=group.id,
                goal={"method": "DELETE"},
                who=call.principal.name,
                now=call.now,
            )
    return accept(desk, call, operation, location=group.location)


def _read_body(call: Call) -> dict[str, Json]:
    body = call.read_document()
    for key in body:
        if key.lower() not in _KNOWN:
            raise ArmError(
                400,
                "InvalidRequestContent",
                f"The request content was invalid: could not find member '{key[:60]}' on a "
                "resource group.",
                target=key[:60],
            )
    return body


def _read_manager(body: dict[str, Json]) -> dict[str, Json]:
    manager = body.get("managedBy")
    if manager is None:
        return {}
    if not isinstance(manager, str) or len(manager) > 2000:
        raise invalid("'managedBy' must be the id of a resource.", target="managedBy")
    return {"managedBy": manager}


def _is_wanted(group: Group, wanted: dict[str, str]) -> bool:
    if wanted.get("name", group.name).lower() != group.key:
        return False
    if wanted.get("location", group.location).replace(" ", "").lower() != group.location:
        return False
    return has_tag(group.document, wanted)


def _make_etag(group: Group) -> str:
    return make_etag({"id": group.id, **group.document})


def _answer(group: Group, *, status: int = 200) -> Answer:
    return Answer(status=status, body=_render(group), headers={"ETag": _make_etag(group)})


def _render(group: Group) -> Json:
    state = "Deleting" if group.is_deleting else "Succeeded"
    return {
        "id": group.id,
        "name": group.name,
        "type": GROUP_TYPE,
        **group.document,
        "properties": {"provisioningState": state},
    }


_GROUPS = "/subscriptions/{subscription}/resourceGroups"
_GROUP = f"{_GROUPS}/{{group}}"
_TAGS = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
_REQUEST = {
    "type": "object",
    "required": ["location"],
    "properties": {"location": {"type": "string"}, "tags": _TAGS, "managedBy": {"type": "string"}},
}
_CHANGE = {"type": "object", "properties": {"tags": _TAGS, "managedBy": {"type": "string"}}}
_RESPONSE = {
    "type": "object",
    "required": ["id", "name", "type", "location", "properties"],
    "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "type": {"type": "string"},
        "location": {"type": "string"},
        "tags": _TAGS,
        "managedBy": {"type": "string"},
        "properties": {
            "type": "object",
            "properties": {"provisioningState": {"enum": ["Succeeded", "Deleting"]}},
        },
    },
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=_GROUPS,
        handler=list_groups,
        summary="List the resource groups",
        is_kept=True,
        query={
            "$filter": "FIELD eq 'VALUE' and ..., of tagName, tagValue, name, location",
            "$top": "how many",
        },
        response={
            "type": "object",
            "required": ["value"],
            "properties": {"value": {"type": "array", "items": _RESPONSE}},
        },
    ),
    Route(
        method="GET",
        path=_GROUP,
        handler=get_group,
        summary="Show a resource group",
        is_kept=True,
        response=_RESPONSE,
    ),
    Route(
        method="HEAD",
        path=_GROUP,
        handler=look_for_group,
        summary="Is there such a resource group?",
        statuses=(204,),
    ),
    Route(
        method="PUT",
        path=_GROUP,
        handler=put_group,
        scope=Scope.OPERATE,
        summary="Make a resource group, or replace its tags",
        request=_REQUEST,
        response=_RESPONSE,
        statuses=(200, 201),
    ),
    Route(
        method="PATCH",
        path=_GROUP,
        handler=patch_group,
        scope=Scope.OPERATE,
        summary="Change the tags of a resource group",
        request=_CHANGE,
        response=_RESPONSE,
    ),
    Route(
        method="DELETE",
        path=_GROUP,
        handler=delete_group,
        scope=Scope.OPERATE,
        summary="Delete a resource group with what is in it; data disks are kept",
        query={"forceDeletionTypes": "taken, but nothing is deleted in another way"},
        statuses=(202,),
    ),
)
