"""Image definitions in galleries."""

from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.galleries import (
    IMAGE,
    GalleryImage,
    find_gallery_image,
    find_place,
    get_gallery,
    get_gallery_image,
    load_places,
    make_gallery_id,
    read_definition_name,
    refuse_followed,
)
from labctl.api.gallery_versions import load_gallery_versions
from labctl.api.gallery_write import Wanted, read_wanted, refuse_change, refuse_nested
from labctl.api.groups import check_group
from labctl.api.respond import answer_page, check_conditions, make_etag
from labctl.api.route import Route
from labctl.arm.errors import conflict, invalid, not_supported, resource_not_found
from labctl.arm.gallery_body import ImageBody
from labctl.arm.ids import ResourceId
from labctl.model.access import Scope
from labctl.model.image import ImageDefinition, OsType
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import remove_resource, save_resource
from labctl.store.gallery import ensure_definition, remove_definition, set_description

Json = Any  # what json.loads gives

_KIND = "galleryImage"
_FIXED = ("osState", "hyperVGeneration", "architecture", "identifier")
# Guests of such images need what a lab's machines do not have. "...Supported" asks for nothing.
_DEMANDS = {"trustedlaunch", "confidentialvm"}


def list_images(desk: Desk, call: Call) -> Answer:
    """All definitions of a gallery by name."""
    gallery = _read_gallery_id(desk, call)
    with desk.database.read() as connection:
        check_group(connection, desk, call.parameters["group"])
        get_gallery(connection, gallery)
        places = [
            place
            for place in load_places(connection, desk).values()
            if place.id.parent is not None and place.id.parent.key == gallery.key
        ]
    return answer_page(call, places, render=_render)


def get(desk: Desk, call: Call) -> Answer:
    """One definition."""
    with desk.database.read() as connection:
        check_group(connection, desk, call.parameters["group"])
        gallery = get_gallery(connection, _read_gallery_id(desk, call))
        identifier = gallery.id.child("images", call.parameters["image"])
        return _answer(get_gallery_image(connection, desk, identifier))


def put(desk: Desk, call: Call) -> Answer:
    """Make a definition, or change what may be changed of one."""
    return _write(desk, call)


def patch(desk: Desk, call: Call) -> Answer:
    """Change a definition."""
    return _write(desk, call, must_exist=True)


def _write(desk: Desk, call: Call, *, must_exist: bool = False) -> Answer:
    name = call.parameters["image"]
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"], is_written=True)
        gallery = get_gallery(connection, _read_gallery_id(desk, call))
        identifier = gallery.id.child("images", name)
        before = find_gallery_image(connection, desk, identifier)
        if before is None and must_exist:
            raise resource_not_found(str(identifier))
        definition = read_definition_name(name)
        check_conditions(call, None if before is None else _make_etag(before))
        if before is None:
            _require_free(connection, desk, definition)
        wanted = read_wanted(
            call,
            ImageBody,
            None if before is None else _render_model(before),
            may_move=before is not None and before.row is None,
        )
        os_type = _check(wanted, before)
        description = wanted.document["properties"].pop("description", None) or ""
        for told in ("osType", "labctl", "allowUpdateImage"):
            wanted.document["properties"].pop(told, None)
        ensure_definition(connection, ImageDefinition(name=definition, os_type=os_type), call.now)
        set_description(connection, definition, description)
        kept = identifier if before is None else before.id
        save_resource(
            connection,
            str(kept),
            type=IMAGE,
            group=call.parameters["group"],
            name=kept.name,
            document=wanted.document,
            now=call.now,
        )
        saved = get_gallery_image(connection, desk, identifier)
    return _answer(saved, status=201 if before is None else 200)


def delete(desk: Desk, call: Call) -> Answer:
    """Delete a definition without versions."""
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"])
        gallery = _read_gallery_id(desk, call)
        place = find_gallery_image(
            connection, desk, gallery.child("images", call.parameters["image"])
        )
        if place is None:
            return Answer(status=204)
        check_conditions(call, _make_etag(place))
        nested = [str(each.number) for each in load_gallery_versions(connection, place)]
        refuse_nested(place.definition.name, nested)
        refuse_followed(connection, place.definition.name, str(place.id))
        remove_definition(connection, place.definition.name)
        remove_resource(connection, str(place.id))
    return Answer(status=200)


def _require_free(connection: Connection, desk: Desk, definition: str) -> None:
    other = find_place(connection, desk, definition)
    if other is not None:
        raise conflict(
            f"The image '{definition}' exists in another gallery of this lab: {other.id}. Names of "
            "images are unique in a lab, and case does not count: choose another, or use that one.",
            code="Conflict",
            target="galleryImageName",
        )


def _check(wanted: Wanted[ImageBody], before: GalleryImage | None) -> OsType:
    properties = wanted.body.properties
    for name, value in (("osType", properties.os_type), ("identifier", properties.identifier)):
        if value is None:
            raise invalid(
                f"Required parameter '{_KIND}.properties.{name}' is missing (null).",
                target=f"properties.{name}",
            )
    if properties.os_state == "Specialized":
        raise not_supported(
            "A lab prepares every instance by cloud-init, Ignition or cloudbase-init, which a "
            "specialized image does not run: instances would have one name and one SSH key, and "
            "no custom data. Generalize the image and say 'Generalized'.",
            target="properties.osState",
        )
    if properties.architecture == "Arm64":
        raise not_supported(
            "The machines of a lab have x86-64 processors, on which an image for Arm64 does not "
            "boot.",
            target="properties.architecture",
        )
    for place, feature in enumerate(properties.features or ()):
        is_security = (feature.name or "").lower() == "securitytype"
        if is_security and (feature.value or "").lower() in _DEMANDS:
            raise not_supported(
                f"A lab has no security type '{feature.value}'; '{feature.value}Supported' is "
                "taken.",
                target=f"properties.features[{place}].value",
            )
    exact = properties.labctl.os_type if properties.labctl else None
    general = OsType.WINDOWS if properties.os_type == "Windows" else OsType.LINUX
    os_type = OsType(exact) if exact else general
    if (os_type is OsType.WINDOWS) is not (general is OsType.WINDOWS):
        raise invalid(
            f"'properties.labctl.osType' is '{exact}', which is not '{properties.os_type}'.",
            target="properties.labctl.osType",
        )
    if before is not None:
        shown = _render_model(before)["properties"]
        refuse_change("properties.osType", before.definition.os_type, os_type, kind=_KIND)
        # Of what was made without the API nobody has told these so far.
        for name in _FIXED if before.row is not None else ():
            after = wanted.document["properties"].get(name, shown.get(name))
            refuse_change(f"properties.{name}", shown.get(name), after, kind=_KIND)
    return os_type


def _read_gallery_id(desk: Desk, call: Call) -> ResourceId:
    return make_gallery_id(desk, call.parameters["group"], call.parameters["gallery"])


def _render_model(place: GalleryImage) -> dict[str, Json]:
    kept: dict[str, Json] = {} if place.row is None else place.row.document
    definition = place.definition
    properties: dict[str, Json] = {
        "osState": "Generalized",
        "hyperVGeneration": "V1",
        "architecture": "x64",
        "identifier": {"publisher": "labctl", "offer": definition.name, "sku": "default"},
        **(kept.get("properties") or {}),
        "osType": "Windows" if definition.os_type is OsType.WINDOWS else "Linux",
    }
    if definition.description:
        properties["description"] = definition.description
    if definition.os_type not in {OsType.LINUX, OsType.WINDOWS}:
        properties["labctl"] = {"osType": definition.os_type.value}
    document: dict[str, Json] = {
        "id": str(place.id),
        "name": place.id.name,
        "type": IMAGE,
        "location": kept.get("location", DEFAULT_REGION),
    }
    if "tags" in kept:
        document["tags"] = kept["tags"]
    return document | {"properties": properties}


def _make_etag(place: GalleryImage) -> str:
    return make_etag(_render_model(place))


def _render(place: GalleryImage) -> dict[str, Json]:
    document = _render_model(place)
    properties = {**document["properties"], "provisioningState": "Succeeded"}
    return document | {"properties": properties, "etag": _make_etag(place)}


def _answer(place: GalleryImage, *, status: int = 200) -> Answer:
    return Answer(status=status, body=_render(place), headers={"ETag": _make_etag(place)})


_IMAGES = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/galleries/"
    "{gallery}/images"
)
_IMAGE = f"{_IMAGES}/{{image}}"
_SCHEMA = {
    "type": "object",
    "properties": {
        "location": {"type": "string"},
        "tags": {"type": ["object", "null"]},
        "properties": {
            "type": "object",
            "properties": {
                "osType": {"enum": ["Linux", "Windows"]},
                "osState": {"enum": ["Generalized"]},
                "description": {"type": ["string", "null"]},
                "identifier": {
                    "type": "object",
                    "required": ["publisher", "offer", "sku"],
                    "properties": {
                        name: {"type": "string"} for name in ("publisher", "offer", "sku")
                    },
                },
            },
        },
    },
}
_LIST = {"type": "object", "required": ["value"], "properties": {"value": {"type": "array"}}}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=_IMAGES,
        handler=list_images,
        summary="List the image definitions of a gallery",
        response=_LIST,
    ),
    Route(
        method="GET",
        path=_IMAGE,
        handler=get,
        summary="Show an image definition",
        response=_SCHEMA,
    ),
    Route(
        method="PUT",
        path=_IMAGE,
        handler=put,
        scope=Scope.OPERATE,
        summary="Make or change an image definition",
        request={**_SCHEMA, "required": ["location", "properties"]},
        response=_SCHEMA,
        statuses=(200, 201),
    ),
    Route(
        method="PATCH",
        path=_IMAGE,
        handler=patch,
        scope=Scope.OPERATE,
        summary="Change an image definition",
        request=_SCHEMA,
        response=_SCHEMA,
    ),
    Route(
        method="DELETE",
        path=_IMAGE,
        handler=delete,
        scope=Scope.OPERATE,
        summary="Delete an image definition without versions",
        statuses=(200, 204),
    ),
)
