"""The instances of a scale set: what they are, their protection, their extensions."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.handlers.schemas import (
    INSTANCE,
    INSTANCE_DOCUMENT,
    INSTANCES,
    RESOURCE,
    SKIP_TOKEN,
    make_list,
    make_object,
)
from labctl.api.judging import find_key, load_shown
from labctl.api.respond import accept, answer_page, check_conditions, make_etag
from labctl.api.route import Route
from labctl.api.scale_set_documents import make_frame
from labctl.api.scale_set_ids import FoundSet, find_called_set, make_instance_id
from labctl.api.wishes import add_ended
from labctl.arm.errors import ArmError, Document, invalid, not_supported, resource_not_found
from labctl.arm.instance_views import Judged, find_extension_statuses, find_statuses
from labctl.arm.instances import (
    Frame,
    Protection,
    read_protection,
    render_extension,
    render_instance,
)
from labctl.controller.protection import protect
from labctl.model.access import Scope
from labctl.store.instance_index import InstanceKey, load_instance_keys

Json = Any  # what json.loads gives

_EXPANDS = frozenset({"instanceview", "userdata"})
_FILTER = re.compile(
    r"\s*(?:startswith\(\s*instanceView/statuses/code\s*,\s*'(?P<prefix>[^']{1,80})'\s*\)"
    r"(?:\s+eq\s+true)?"
    r"|properties/latestModelApplied\s+eq\s+(?P<latest>true|false))\s*",
    re.IGNORECASE,
)


def list_instances(desk: Desk, call: Call) -> Answer:
    """A page of instances, with their views if asked for."""
    chosen_parts = _split(call.query.get("$select", ""))
    with_view = "instanceview" in read_expand(call) | chosen_parts
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        keys = load_instance_keys(connection, found.name)
        wanted = call.query.get("$filter", "")
        if wanted.strip():
            judged = load_shown(connection, desk, found, frame, keys, now=call.now)
            keys = _filter(keys, judged, wanted)
        page: Json = answer_page(call, keys).body
        chosen: Sequence[InstanceKey] = page["value"]
        shown = load_shown(connection, desk, found, frame, chosen, now=call.now)
    rendered = [_render(each, frame, with_view=with_view) for each in shown]
    if chosen_parts:
        rendered = [_select(each, chosen_parts) for each in rendered]
    return Answer(body={**page, "value": rendered})


def get_instance(desk: Desk, call: Call) -> Answer:
    """One instance."""
    with_view = "instanceview" in read_expand(call)
    with desk.database.read() as connection:
        _, frame, judged = _find(connection, desk, call)
    shown = _render(judged, frame, with_view=with_view)
    return Answer(body=shown, headers={"ETag": str(shown["etag"])})


def put_instance(desk: Desk, call: Call) -> Answer:
    """Change the protection of an instance; nothing else of a single one can be changed."""
    body = call.read_document()
    with desk.database.write() as connection:
        found, frame, judged = _find(connection, desk, call)
        check_conditions(call, str(_render(judged, frame)["etag"]))
        wish = read_protection(body, render_instance(judged, frame, with_view=True))
        name = judged.instance.name
        if wish != Protection():
            protect(connection, [name], scale_in=wish.scale_in, actions=wish.actions, now=call.now)
        _, _, judged = _find(connection, desk, call)
        identifier = str(make_instance_id(found.id, judged.instance.ordinal))
        operation = add_ended(
            connection,
            resource=identifier,
            scale_set=found.name,
            method="PUT",
            who=call.principal.name,
            now=call.now,
        )
    shown = _render(judged, frame)
    return accept(desk, call, operation, status=200, body=shown, location=frame.location)


def list_extensions(desk: Desk, call: Call) -> Answer:
    """The extensions of one instance."""
    with_view = "instanceview" in read_expand(call)
    with desk.database.read() as connection:
        _, frame, judged = _find(connection, desk, call)
    names = find_extension_statuses(judged)
    shown = [render_extension(judged, frame, name, with_view=with_view) for name in names]
    return Answer(body={"value": shown})


def get_extension(desk: Desk, call: Call) -> Answer:
    """One extension of one instance."""
    with_view = "instanceview" in read_expand(call)
    with desk.database.read() as connection:
        found, frame, judged = _find(connection, desk, call)
    wanted = call.parameters["extension"]
    for name in find_extension_statuses(judged):
        if name.lower() == wanted.lower():
            return Answer(body=render_extension(judged, frame, name, with_view=with_view))
    identifier = make_instance_id(found.id, judged.instance.ordinal)
    raise resource_not_found(str(identifier.child("extensions", wanted[:80])))


def refuse_extension(desk: Desk, call: Call) -> Answer:
    """Extensions of a single instance would be another model than that of its scale set."""
    with desk.database.read() as connection:
        _find(connection, desk, call)
    raise not_supported(
        "Extensions of a single instance cannot be changed in a lab: change those of the scale "
        "set, then update the instance.",
        target="extensions",
    )


def read_expand(call: Call) -> frozenset[str]:
    """What `$expand` asks for, in lower case. Raises ArmError for what there is not."""
    words = _split(call.query.get("$expand", ""))
    unknown = words - _EXPANDS
    if unknown:
        raise invalid(
            f"$expand '{sorted(unknown)[0][:60]}' is not one of instanceView, userData.",
            target="$expand",
        )
    return words


def _split(text: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in text.split(",")) - {""}


def _select(document: Document, parts: frozenset[str]) -> Document:
    """Who it is, and of all else only these parts, at the top or among the properties."""
    properties: Json = document["properties"]
    found = {
        key: each
        for key, each in document.items()
        if key in {"id", "name", "instanceId"} or key.lower() in parts
    }
    chosen = {key: each for key, each in properties.items() if key.lower() in parts}
    return {**found, "properties": properties if "properties" in parts else chosen}


def _find(connection: Connection, desk: Desk, call: Call) -> tuple[FoundSet, Frame, Judged]:
    found = find_called_set(connection, desk, call.parameters)
    frame = make_frame(connection, desk, found)
    key = find_key(connection, found, call.parameters["instance"])
    (judged,) = load_shown(connection, desk, found, frame, [key], now=call.now)
    return found, frame, judged


def _render(judged: Judged, frame: Frame, *, with_view: bool = False) -> Document:
    """An instance with its etag, which tells of wishes and not of statuses."""
    document = render_instance(judged, frame, with_view=with_view)
    instance = judged.instance
    wishes: Document = {
        "id": document["id"],
        "made": instance.created_at.isoformat(),
        "protection": [instance.protect_from_scale_in, instance.protect_from_scale_set_actions],
        "model": instance.current.model_revision,
        "generation": instance.generation,
    }
    return document | {"etag": make_etag(wishes)}


def _filter(keys: Sequence[InstanceKey], judged: Sequence[Judged], text: str) -> list[InstanceKey]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise ArmError(
            400,
            "InvalidFilterInQueryString",
            f"Invalid $filter '{text[:100]}': this lab knows "
            "startswith(instanceView/statuses/code, 'PowerState') and "
            "properties/latestModelApplied eq true.",
            target="$filter",
        )
    prefix, latest = match["prefix"], match["latest"]
    chosen = {
        each.instance.name
        for each in judged
        if (
            each.has_latest_model is (latest.lower() == "true")
            if latest is not None
            else any(
                status.code.lower().startswith(prefix.lower()) for status in find_statuses(each)
            )
        )
    }
    return [key for key in keys if key.name in chosen]


_EXPAND = {"$expand": "instanceView: with the instance view"}
_PROTECTION: Document = make_object(
    properties=make_object(
        protectionPolicy=make_object(
            protectFromScaleIn={"type": ["boolean", "null"]},
            protectFromScaleSetActions={"type": ["boolean", "null"]},
        )
    )
)
_EXTENSION = f"{INSTANCE}/extensions/{{extension}}"

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=INSTANCES,
        handler=list_instances,
        summary="List the instances of a scale set",
        is_kept=True,
        query={
            **_EXPAND,
            **SKIP_TOKEN,
            "$filter": "startswith(instanceView/statuses/code, 'PowerState'), or "
            "properties/latestModelApplied eq true",
            "$select": "Names of properties, like instanceView; beside them only who it is",
        },
        response=make_list(INSTANCE_DOCUMENT),
    ),
    Route(
        method="GET",
        path=INSTANCE,
        handler=get_instance,
        summary="Show an instance",
        is_kept=True,
        query=_EXPAND,
        response=INSTANCE_DOCUMENT,
    ),
    *(
        Route(
            method=method,
            path=INSTANCE,
            handler=put_instance,
            scope=Scope.OPERATE,
            summary="Protect an instance from scale-in or from scale set actions; If-Match and "
            "If-None-Match are regarded",
            request=_PROTECTION,
            response=INSTANCE_DOCUMENT,
        )
        for method in ("PUT", "PATCH")
    ),
    Route(
        method="GET",
        path=f"{INSTANCE}/extensions",
        handler=list_extensions,
        summary="List the extensions of an instance",
        query=_EXPAND,
        response=make_list(RESOURCE),
    ),
    Route(
        method="GET",
        path=_EXTENSION,
        handler=get_extension,
        summary="Show an extension of an instance",
        query=_EXPAND,
        response=RESOURCE,
    ),
    *(
        Route(
            method=method,
            path=_EXTENSION,
            handler=refuse_extension,
            scope=Scope.OPERATE,
            summary="Refused: instances have the extensions of their scale set",
        )
        for method in ("PUT", "PATCH", "DELETE")
    ),
)
