"""The extensions of a scale set as resources of their own: each is an entry of the model."""

from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.handlers.scale_sets import record_apply
from labctl.api.handlers.schemas import OBJECT, RESOURCE, SET, make_list, make_object
from labctl.api.respond import accept
from labctl.api.route import Route
from labctl.api.scale_set_documents import show_set, write_set
from labctl.api.scale_set_ids import FoundSet, find_called_set
from labctl.arm.errors import Document, invalid, resource_not_found
from labctl.arm.merge import canonicalise
from labctl.model.access import Scope

Json = Any  # what json.loads gives


def list_extensions(desk: Desk, call: Call) -> Answer:
    """The extensions of the model."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        shown: Json = show_set(connection, desk, found)
    return Answer(body={"value": [_render(found, shown, each) for each in _entries(shown)]})


def get_extension(desk: Desk, call: Call) -> Answer:
    """One extension of the model."""
    wanted = call.parameters["extension"]
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        shown: Json = show_set(connection, desk, found)
    for each in _entries(shown):
        if each["name"].lower() == wanted.lower():
            return Answer(body=_render(found, shown, each))
    raise resource_not_found(str(found.id.child("extensions", wanted[:80])))


def put_extension(desk: Desk, call: Call) -> Answer:
    """Add an extension to the model, or merge over the one of this name."""
    body = _canonicalise(call.read_document())
    wanted = call.parameters["extension"]
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise invalid("'properties' is missing, or is no object.", target="properties")
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        shown: Json = show_set(connection, desk, found)
        entries = _entries(shown)
        present = next((e for e in entries if e["name"].lower() == wanted.lower()), None)
        if present is None and call.method == "PATCH":
            raise resource_not_found(str(found.id.child("extensions", wanted[:80])))
        name = wanted if present is None else present["name"]
        sent = {key: value for key, value in properties.items() if key != "provisioningState"}
        merged = {**(present["properties"] if present else {}), **sent}
        entry = {"name": name, "properties": merged}
        others = [entry if each is present else each for each in entries]
        change = _make_change(others if present else [*others, entry])
        written = write_set(connection, desk, call, found.id, found, change)
        identifier = str(found.id.child("extensions", name))
        operation = record_apply(connection, call, written, resource=identifier)
        after: Json = show_set(connection, desk, written.found)
    rendered = next(_render(found, after, e) for e in _entries(after) if e["name"] == name)
    return accept(
        desk,
        call,
        operation,
        status=201 if present is None else 200,
        body=rendered,
        location=after["location"],
    )


def delete_extension(desk: Desk, call: Call) -> Answer:
    """Take an extension out of the model."""
    wanted = call.parameters["extension"].lower()
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        shown: Json = show_set(connection, desk, found)
        entries = _entries(shown)
        left = [each for each in entries if each["name"].lower() != wanted]
        if len(left) == len(entries):
            return Answer(status=204)
        written = write_set(connection, desk, call, found.id, found, _make_change(left))
        identifier = str(found.id.child("extensions", call.parameters["extension"]))
        operation = record_apply(connection, call, written, resource=identifier)
    return accept(desk, call, operation, location=shown["location"])


def _entries(shown: Json) -> list[Json]:
    profile: Json = shown["properties"]["virtualMachineProfile"]
    found: list[Json] = profile["extensionProfile"]["extensions"]
    return found


def _canonicalise(body: Json) -> Json:
    """The entry with Azure's names in their own case; clients write them in any."""
    return _entries(canonicalise(_make_change([body])))[0]


def _make_change(entries: list[Json]) -> Document:
    return {"properties": {"virtualMachineProfile": {"extensionProfile": {"extensions": entries}}}}


def _render(found: FoundSet, shown: Json, entry: Json) -> Document:
    state = shown["properties"]["provisioningState"]
    return {
        "id": str(found.id.child("extensions", entry["name"])),
        "name": entry["name"],
        "type": "Microsoft.Compute/virtualMachineScaleSets/extensions",
        "properties": {**entry["properties"], "provisioningState": state},
    }


_EXTENSION = f"{SET}/extensions/{{extension}}"
_REQUEST = make_object(("properties",), properties=OBJECT)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{SET}/extensions",
        handler=list_extensions,
        summary="List the extensions of a scale set",
        response=make_list(RESOURCE),
    ),
    Route(
        method="GET",
        path=_EXTENSION,
        handler=get_extension,
        summary="Show an extension of a scale set",
        query={"$expand": "Has no effect"},
        response=RESOURCE,
    ),
    *(
        Route(
            method=method,
            path=_EXTENSION,
            handler=put_extension,
            scope=Scope.OPERATE,
            summary="Add an extension to the model, or change it",
            request=_REQUEST,
            response=RESOURCE,
            statuses=(200, 201),
        )
        for method in ("PUT", "PATCH")
    ),
    Route(
        method="DELETE",
        path=_EXTENSION,
        handler=delete_extension,
        scope=Scope.OPERATE,
        summary="Take an extension out of the model",
        statuses=(202, 204),
    ),
)
