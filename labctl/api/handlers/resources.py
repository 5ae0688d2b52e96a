"""Everything that is in a resource group or in the lab, whatever its type."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.galleries import GALLERY, IMAGE, load_gallery_ids, load_places
from labctl.api.groups import check_group
from labctl.api.query import cut, has_tag, read_filter
from labctl.api.respond import answer_page
from labctl.api.route import Route
from labctl.api.scale_set_ids import load_sets
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.network_kinds import find_kind
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import ArmResource, load_resources
from labctl.store.scale_sets import load_models

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    id: ResourceId
    location: str
    document: dict[str, Json]
    created_at: datetime | None
    changed_at: datetime | None


def list_in_group(desk: Desk, call: Call) -> Answer:
    """What is in a resource group."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
        items = _load(connection, desk)
    return _answer(call, [each for each in items if (each.id.group or "").lower() == group.key])


def list_all(desk: Desk, call: Call) -> Answer:
    """What is in the lab."""
    with desk.database.read() as connection:
        items = _load(connection, desk)
    return _answer(call, items)


def _load(connection: Connection, desk: Desk) -> list[_Item]:
    """Scale sets, galleries with their images, and network resources, by id."""
    rows = {row.key: row for row in load_resources(connection)}
    found: list[_Item] = []
    for scale_set in load_sets(connection, desk):
        spec = load_models(connection, scale_set.name)[scale_set.row.model_revision]
        found.append(_make(scale_set.id, scale_set.resource, spec.region))
    images = [each.id for each in load_places(connection, desk).values()]
    found += (
        _make(identifier, rows.get(identifier.key), DEFAULT_REGION)
        for identifier in (*load_gallery_ids(connection, desk), *images)
    )
    found += (
        _make(parse_id(row.id), row, DEFAULT_REGION)
        for row in rows.values()
        if find_kind(row.type) is not None
    )
    return sorted(found, key=lambda item: item.id.key)


def _make(identifier: ResourceId, row: ArmResource | None, region: str) -> _Item:
    document = {} if row is None else row.document
    location = document.get("location")
    return _Item(
        id=identifier,
        location=location if isinstance(location, str) else region,
        document=document,
        created_at=None if row is None else row.created_at,
        changed_at=None if row is None else row.changed_at,
    )


def _answer(call: Call, items: list[_Item]) -> Answer:
    wanted = read_filter(
        call, "resourceType", "resourceGroup", "name", "location", "tagName", "tagValue"
    )
    expanded = {each.strip().lower() for each in call.query.get("$expand", "").split(",")}
    found = [each for each in items if _is_wanted(each, wanted)]
    return answer_page(call, cut(call, found), render=lambda item: _render(item, expanded))


def _is_wanted(item: _Item, wanted: dict[str, str]) -> bool:
    facts = {
        "resourcetype": item.id.type.lower(),
        "resourcegroup": (item.id.group or "").lower(),
        "name": item.id.name.lower(),
        "location": item.location,
    }
    for field, fact in facts.items():
        asked = wanted.get(field, fact).lower()
        if (asked.replace(" ", "") if field == "location" else asked) != fact:
            return False
    return has_tag(item.document, wanted)


def _render(item: _Item, expanded: set[str]) -> Json:
    shown: dict[str, Json] = {
        "id": str(item.id),
        "name": "/".join(item.id.names),
        "type": item.id.type,
        "location": item.location,
    }
    for key in ("tags", "sku", "zones"):
        if key in item.document:
            shown[key] = item.document[key]
    if "createdtime" in expanded and item.created_at is not None:
        shown["createdTime"] = item.created_at.isoformat()
    if "changedtime" in expanded and item.changed_at is not None:
        shown["changedTime"] = item.changed_at.isoformat()
    if "provisioningstate" in expanded and item.id.type.lower() in _ALWAYS_DONE:
        shown["provisioningState"] = "Succeeded"
    return shown


# Of others, their own GET tells how they are.
_ALWAYS_DONE = frozenset({GALLERY.lower(), IMAGE.lower()})

_STRING = {"type": "string"}
_QUERY = {
    "$filter": "FIELD eq 'VALUE' and ..., of resourceType, resourceGroup, name, location, tagName, "
    "tagValue",
    "$top": "how many",
    "$expand": "createdTime, changedTime, provisioningState",
}
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {
        "value": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "name", "type", "location"],
                "properties": {
                    "id": _STRING,
                    "name": _STRING,
                    "type": _STRING,
                    "location": _STRING,
                    "tags": {"type": "object", "additionalProperties": _STRING},
                },
            },
        },
        "nextLink": _STRING,
    },
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/subscriptions/{subscription}/resourceGroups/{group}/resources",
        handler=list_in_group,
        summary="List what is in a resource group",
        is_kept=True,
        query=_QUERY,
        response=_LIST,
    ),
    Route(
        method="GET",
        path="/subscriptions/{subscription}/resources",
        handler=list_all,
        summary="List what is in the lab",
        is_kept=True,
        query=_QUERY,
        response=_LIST,
    ),
)
