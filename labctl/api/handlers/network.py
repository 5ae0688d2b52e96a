"""Network resources: kept so that templates work, and so that health probes have a place.

A lab does nothing else with them: instances are reached through labctl's own networks, nothing is
forwarded or filtered, and a public IP address has no address.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.groups import check_group
from labctl.api.network_store import (
    NAMESPACE,
    get_resource,
    make_id,
    make_resource_etag,
    save,
    write,
)
from labctl.api.references import load_holders, refuse_used
from labctl.api.respond import answer_page, check_conditions
from labctl.api.route import Handler, Route
from labctl.arm.errors import ArmError, invalid, resource_not_found
from labctl.arm.ids import parse_id
from labctl.arm.network import (
    check_name,
    find_member,
    load_members,
    read_part,
    read_resource,
    render_part,
    render_resource,
)
from labctl.arm.network_kinds import NETWORK_KINDS, Kind, Part
from labctl.arm.tracked import merge_tags
from labctl.model.access import Scope
from labctl.store.arm_resources import (
    ArmResource,
    find_resource,
    load_resources,
    remove_resource,
)

Json = Any  # what json.loads gives


def list_in_group(kind: Kind, desk: Desk, call: Call) -> Answer:
    """All of a kind in a resource group."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        found = load_resources(connection, type=kind.type, group=group.key)
    return answer_page(call, found, render=partial(_render, kind))


def list_all(kind: Kind, desk: Desk, call: Call) -> Answer:
    """All of a kind."""
    with desk.database.read() as connection:
        found = load_resources(connection, type=kind.type)
    return answer_page(call, found, render=partial(_render, kind))


def get(kind: Kind, desk: Desk, call: Call) -> Answer:
    """One resource."""
    with desk.database.read() as connection:
        resource = get_resource(connection, kind, desk, call)
    return _answer(kind, resource)


def put(kind: Kind, desk: Desk, call: Call) -> Answer:
    """Make a resource, or replace it as a whole, as Azure does with those of the network."""
    name = call.parameters["name"]
    check_name(name, target="name")
    document = read_resource(kind, call.read_document())
    with desk.database.write() as connection:
        group = check_group(connection, desk, call.parameters["group"], is_written=True)
        identifier = make_id(kind, desk, group.name, name)
        before = find_resource(connection, str(identifier))
        check_conditions(call, None if before is None else make_resource_etag(kind, before))
        if before is not None and before.document["location"] != document["location"]:
            raise ArmError(
                409,
                "InvalidResourceLocation",
                f"The resource '{before.name}' already exists in location "
                f"'{before.document['location']}' in resource group '{group.name}'. A resource "
                "with the same name cannot be created in location "
                f"'{document['location']}'.",
                target="location",
            )
        saved = save(connection, kind, identifier, before, document, call)
    return _answer(kind, saved, status=201 if before is None else 200)


def patch(kind: Kind, desk: Desk, call: Call) -> Answer:
    """Give a resource other tags; Azure lets nothing else be patched here."""
    body = call.read_document()
    for key in body:
        if key != "tags":
            raise invalid(
                f"PATCH of a {kind.title} changes 'tags' only, not '{key[:60]}'; PUT the whole "
                "resource for that.",
                target=key[:60],
            )
    with desk.database.write() as connection:
        resource = get_resource(connection, kind, desk, call)
        check_group(connection, desk, call.parameters["group"], is_written=True)
        check_conditions(call, make_resource_etag(kind, resource))
        document = merge_tags(resource.document, body.get("tags"))
        saved = write(connection, kind, parse_id(resource.id), document, call)
    return _answer(kind, saved)


def delete(kind: Kind, desk: Desk, call: Call) -> Answer:
    """Forget a resource that no other one names."""
    with desk.database.write() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        identifier = make_id(kind, desk, group.name, call.parameters["name"])
        resource = find_resource(connection, str(identifier))
        if resource is None:
            check_conditions(call, None)
            return Answer(status=204)
        check_conditions(call, make_resource_etag(kind, resource))
        refuse_used(load_holders(connection), resource.id, code=kind.in_use_code)
        remove_resource(connection, resource.id)
    return Answer(status=200)


def list_parts(kind: Kind, part: Part, desk: Desk, call: Call) -> Answer:
    """The members of one of its lists."""
    with desk.database.read() as connection:
        resource = get_resource(connection, kind, desk, call)
    members = load_members(resource.document, part.key)
    etag, parent = make_resource_etag(kind, resource), parse_id(resource.id)
    return answer_page(
        call, members, render=lambda member: render_part(part, parent, member, etag=etag)
    )


def get_part(kind: Kind, part: Part, desk: Desk, call: Call) -> Answer:
    """One member of one of its lists."""
    with desk.database.read() as connection:
        resource = get_resource(connection, kind, desk, call)
    return _answer_part(kind, part, resource, call.parameters["child"])


def put_part(kind: Kind, part: Part, desk: Desk, call: Call) -> Answer:
    """Add a member to a list, or replace it."""
    name = call.parameters["child"]
    member = read_part(part, name, call.read_document(), target=part.key)
    with desk.database.write() as connection:
        resource = get_resource(connection, kind, desk, call)
        check_group(connection, desk, call.parameters["group"], is_written=True)
        old = find_member(resource.document, part.key, name)
        check_conditions(call, None if old is None else make_resource_etag(kind, resource))
        members = load_members(resource.document, part.key)
        if old is None:
            members.append(member)
        else:
            member["name"] = old["name"]  # in the case in which it was made
            members = [member if each["name"] == old["name"] else each for each in members]
        document = _with_members(resource.document, part, members)
        saved = save(connection, kind, parse_id(resource.id), resource, document, call)
    return _answer_part(kind, part, saved, name, status=201 if old is None else 200)


def delete_part(kind: Kind, part: Part, desk: Desk, call: Call) -> Answer:
    """Take a member that nothing names out of its list."""
    name = call.parameters["child"]
    with desk.database.write() as connection:
        resource = get_resource(connection, kind, desk, call)
        member = find_member(resource.document, part.key, name)
        check_conditions(call, None if member is None else make_resource_etag(kind, resource))
        if member is None:
            return Answer(status=204)
        members = [
            each
            for each in load_members(resource.document, part.key)
            if each["name"] != member["name"]
        ]
        document = _with_members(resource.document, part, members)
        save(connection, kind, parse_id(resource.id), resource, document, call)
    return Answer(status=200)


def _with_members(
    document: dict[str, Json], part: Part, members: list[dict[str, Json]]
) -> dict[str, Json]:
    return document | {"properties": document["properties"] | {part.key: members}}


def _render(kind: Kind, resource: ArmResource) -> Json:
    identifier = parse_id(resource.id)
    return render_resource(
        kind, identifier, resource.document, etag=make_resource_etag(kind, resource)
    )


def _answer(kind: Kind, resource: ArmResource, *, status: int = 200) -> Answer:
    headers = {"ETag": make_resource_etag(kind, resource)}
    return Answer(status=status, body=_render(kind, resource), headers=headers)


def _answer_part(
    kind: Kind, part: Part, resource: ArmResource, name: str, *, status: int = 200
) -> Answer:
    member = find_member(resource.document, part.key, name)
    if member is None:
        raise resource_not_found(f"{resource.id}/{part.key}/{name}"[:500])
    etag = make_resource_etag(kind, resource)
    body = render_part(part, parse_id(resource.id), member, etag=etag)
    return Answer(status=status, body=body, headers={"ETag": etag})


_MADE = (200, 201)
_GONE = (200, 204)
_PREFIX = "/subscriptions/{subscription}"
_STRING = {"type": "string"}
_RESOURCE = {
    "type": "object",
    "required": ["id", "name", "type", "etag", "properties"],
    "properties": {
        "id": _STRING,
        "name": _STRING,
        "type": _STRING,
        "etag": _STRING,
        "location": _STRING,
        "tags": {"type": "object", "additionalProperties": _STRING},
        "properties": {
            "type": "object",
            "properties": {"provisioningState": {"const": "Succeeded"}},
        },
    },
}
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "items": _RESOURCE}, "nextLink": _STRING},
}
_REQUEST = {
    "type": "object",
    "required": ["location"],
    "properties": {
        "location": _STRING,
        "tags": {"type": ["object", "null"]},
        "sku": {"type": ["object", "null"]},
        "zones": {"type": ["array", "null"], "items": _STRING},
        "properties": {"type": ["object", "null"]},
    },
}
_TAGS = {"type": "object", "properties": {"tags": {"type": ["object", "null"]}}}
_PART = {"type": "object", "properties": {"properties": {"type": ["object", "null"]}}}


def _make_routes(kind: Kind) -> list[Route]:
    below = f"/providers/{NAMESPACE}/{kind.name}"
    several = f"{_PREFIX}/resourceGroups/{{group}}{below}"
    one = f"{several}/{{name}}"

    def read(path: str, handler: Handler, summary: str, schema: dict[str, Json]) -> Route:
        return Route(
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            is_kept=True,
            response=schema,
            query={"$expand": "taken; everything is shown anyway"},
        )

    def make_write(
        method: str,
        path: str,
        handler: Handler,
        summary: str,
        *,
        request: dict[str, Json] | None = None,
        response: dict[str, Json] | None = None,
        statuses: tuple[int, ...] = (200,),
    ) -> Route:
        return Route(
            method=method,
            path=path,
            handler=handler,
            scope=Scope.OPERATE,
            summary=summary,
            request=request,
            response=response,
            statuses=statuses,
        )

    bind: Callable[..., Handler] = partial
    title = kind.title
    routes = [
        read(f"{_PREFIX}{below}", bind(list_all, kind), f"List every {title}", _LIST),
        read(several, bind(list_in_group, kind), f"List every {title} in a group", _LIST),
        read(one, bind(get, kind), f"Show a {title}", _RESOURCE),
        make_write(
            "PUT",
            one,
            bind(put, kind),
            f"Make or replace a {title}",
            request=_REQUEST,
            response=_RESOURCE,
            statuses=_MADE,
        ),
        make_write(
            "PATCH",
            one,
            bind(patch, kind),
            f"Change the tags of a {title}",
            request=_TAGS,
            response=_RESOURCE,
        ),
        make_write("DELETE", one, bind(delete, kind), f"Delete a {title}", statuses=_GONE),
    ]
    for part in kind.parts:
        if not part.is_shown:
            continue
        parts, each = f"{one}/{part.key}", f"{one}/{part.key}/{{child}}"
        what = f"{part.key} of a {title}"
        routes += [
            read(parts, bind(list_parts, kind, part), f"List the {what}", _LIST),
            read(each, bind(get_part, kind, part), f"Show one of the {what}", _RESOURCE),
        ]
        if part.is_written:
            summary = f"Add or replace one of the {what}"
            routes += [
                make_write(
                    "PUT",
                    each,
                    bind(put_part, kind, part),
                    summary,
                    request=_PART,
                    response=_RESOURCE,
                    statuses=_MADE,
                ),
                make_write(
                    "DELETE",
                    each,
                    bind(delete_part, kind, part),
                    f"Delete one of the {what}",
                    statuses=_GONE,
                ),
            ]
    return routes


ROUTES: tuple[Route, ...] = tuple(route for kind in NETWORK_KINDS for route in _make_routes(kind))
