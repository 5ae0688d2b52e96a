"""Galleries: made, listed, changed, deleted when nothing is in them."""

from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.galleries import (
    GALLERY,
    Gallery,
    check_gallery_name,
    find_gallery,
    get_gallery,
    load_gallery_ids,
    load_places,
    make_gallery_id,
)
from labctl.api.gallery_write import read_wanted, refuse_nested
from labctl.api.groups import check_group
from labctl.api.respond import answer_page, check_conditions, make_etag
from labctl.api.route import Route
from labctl.arm.errors import conflict, not_supported, resource_not_found
from labctl.arm.gallery_body import GalleryBody
from labctl.arm.ids import ResourceId
from labctl.model.access import Scope
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import remove_resource, save_resource

Json = Any  # what json.loads gives

_DESCRIPTION = "Image definitions that were made without the API"


def list_galleries(desk: Desk, call: Call) -> Answer:
    """Of a group, or of the lab."""
    group = call.parameters.get("group")
    with desk.database.read() as connection:
        if group is not None:
            check_group(connection, desk, group)
        found = [
            _render(get_gallery(connection, each))
            for each in load_gallery_ids(connection, desk)
            if group is None or (each.group or "").lower() == group.lower()
        ]
    return answer_page(call, found)


def list_shared(desk: Desk, call: Call) -> Answer:  # noqa: ARG001 - the signature of handlers
    """Nobody shares galleries with a lab."""
    return Answer(body={"value": []})


def get(desk: Desk, call: Call) -> Answer:
    """One gallery."""
    with desk.database.read() as connection:
        check_group(connection, desk, call.parameters["group"])
        return _answer(get_gallery(connection, _read_id(desk, call)))


def put(desk: Desk, call: Call) -> Answer:
    """Make a gallery, or change one."""
    check_gallery_name(call.parameters["gallery"])
    return _write(desk, call)


def patch(desk: Desk, call: Call) -> Answer:
    """Change a gallery."""
    return _write(desk, call, must_exist=True)


def _write(desk: Desk, call: Call, *, must_exist: bool = False) -> Answer:
    identifier = _read_id(desk, call)
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"], is_written=True)
        before = find_gallery(connection, identifier)
        if before is None and must_exist:
            raise resource_not_found(str(identifier))
        check_conditions(call, None if before is None else _make_etag(before))
        wanted = read_wanted(
            call,
            GalleryBody,
            None if before is None else _render_model(before),
            may_move=before is not None and before.row is None,
        )
        properties = wanted.body.properties
        sharing, deletion = properties.sharing_profile, properties.soft_delete_policy
        if sharing is not None and sharing.permissions not in {None, "Private"}:
            raise not_supported(
                "Nobody can share a gallery of a lab; leave sharingProfile out, or 'Private'.",
                target="properties.sharingProfile.permissions",
            )
        if deletion is not None and deletion.is_soft_delete_enabled:
            raise not_supported(
                "What a lab deletes cannot be had back; leave softDeletePolicy out.",
                target="properties.softDeletePolicy.isSoftDeleteEnabled",
            )
        document = wanted.document
        document["properties"].pop("identifier", None)
        kept = identifier if before is None else before.id
        save_resource(
            connection,
            str(kept),
            type=GALLERY,
            group=call.parameters["group"],
            name=kept.name,
            document=document,
            now=call.now,
        )
        saved = get_gallery(connection, identifier)
    return _answer(saved, status=201 if before is None else 200)


def delete(desk: Desk, call: Call) -> Answer:
    """Delete a gallery without images."""
    identifier = _read_id(desk, call)
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"])
        gallery = find_gallery(connection, identifier)
        if gallery is None:
            return Answer(status=204)
        check_conditions(call, _make_etag(gallery))
        if gallery.is_default:
            raise conflict(
                f"The gallery '{gallery.id.name}' holds what is made without the API and cannot "
                "be deleted.",
                target=gallery.id.name,
            )
        nested = [
            name
            for name, place in load_places(connection, desk).items()
            if place.id.parent is not None and place.id.parent.key == identifier.key
        ]
        refuse_nested(gallery.id.name, nested)
        remove_resource(connection, str(identifier))
    return Answer(status=200)


def _read_id(desk: Desk, call: Call) -> ResourceId:
    return make_gallery_id(desk, call.parameters["group"], call.parameters["gallery"])


def _render_model(gallery: Gallery) -> dict[str, Json]:
    document: dict[str, Json] = {
        "location": DEFAULT_REGION,
        "properties": {"description": _DESCRIPTION},
    }
    if gallery.row is not None:
        document = dict(gallery.row.document)
    unique = "-".join((gallery.id.subscription, gallery.id.name)).upper()
    properties = {**document["properties"], "identifier": {"uniqueName": unique}}
    head = {"id": str(gallery.id), "name": gallery.id.name, "type": GALLERY}
    return head | document | {"properties": properties}


def _make_etag(gallery: Gallery) -> str:
    return make_etag(_render_model(gallery))


def _render(gallery: Gallery) -> dict[str, Json]:
    document = _render_model(gallery)
    properties = {**document["properties"], "provisioningState": "Succeeded"}
    return document | {"properties": properties, "etag": _make_etag(gallery)}


def _answer(gallery: Gallery, *, status: int = 200) -> Answer:
    return Answer(status=status, body=_render(gallery), headers={"ETag": _make_etag(gallery)})


_COMPUTE = "/subscriptions/{subscription}/providers/Microsoft.Compute"
_GALLERIES = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/galleries"
)
_GALLERY = f"{_GALLERIES}/{{gallery}}"
_SCHEMA = {
    "type": "object",
    "properties": {
        "location": {"type": "string"},
        "tags": {"type": ["object", "null"]},
        "properties": {
            "type": "object",
            "properties": {"description": {"type": ["string", "null"]}},
        },
    },
}
_LIST = {"type": "object", "required": ["value"], "properties": {"value": {"type": "array"}}}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{_COMPUTE}/galleries",
        handler=list_galleries,
        summary="List the galleries of the lab",
        response=_LIST,
    ),
    Route(
        method="GET",
        path=_GALLERIES,
        handler=list_galleries,
        summary="List the galleries of a resource group",
        response=_LIST,
    ),
    Route(method="GET", path=_GALLERY, handler=get, summary="Show a gallery", response=_SCHEMA),
    Route(
        method="PUT",
        path=_GALLERY,
        handler=put,
        scope=Scope.OPERATE,
        summary="Make or change a gallery",
        request={**_SCHEMA, "required": ["location"]},
        response=_SCHEMA,
        statuses=(200, 201),
    ),
    Route(
        method="PATCH",
        path=_GALLERY,
        handler=patch,
        scope=Scope.OPERATE,
        summary="Change a gallery",
        request=_SCHEMA,
        response=_SCHEMA,
    ),
    Route(
        method="DELETE",
        path=_GALLERY,
        handler=delete,
        scope=Scope.OPERATE,
        summary="Delete a gallery without images",
        statuses=(200, 204),
    ),
    *(
        Route(
            method="GET",
            path=f"{_COMPUTE}/locations/{{location}}/{kind}",
            handler=list_shared,
            summary=f"List {kind}: a lab has none",
            response=_LIST,
        )
        for kind in ("sharedGalleries", "communityGalleries")
    ),
)
