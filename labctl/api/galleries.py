"""In which gallery an image definition is; the gallery `labctl` holds what has no other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.arm.errors import conflict, invalid, not_supported, resource_not_found
from labctl.arm.ids import ResourceId, parse_id
from labctl.errors import InvalidError
from labctl.model.image import ImageDefinition, VersionNumber
from labctl.model.machine import NAME_PATTERN
from labctl.store.arm_resources import ArmResource, find_resource, load_resources
from labctl.store.follows import find_follow
from labctl.store.gallery import find_definition, load_definitions
from labctl.store.scale_sets import load_models, load_scale_sets

Json = Any  # what json.loads gives

NAMESPACE = "Microsoft.Compute"
GALLERY = "Microsoft.Compute/galleries"
IMAGE = "Microsoft.Compute/galleries/images"
VERSION = "Microsoft.Compute/galleries/images/versions"
DEFAULT_GALLERY = "labctl"  # in the group of the same name
_GALLERY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._]{0,78}[A-Za-z0-9])?")  # Azure's rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A gallery; the default one need not have a row."""

    id: ResourceId
    row: ArmResource | None

    @property
    def is_default(self) -> bool:
        """Is it the one of what was made without the API?"""
        return is_default_gallery(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryImage:
    """An image definition and its place."""

    id: ResourceId
    row: ArmResource | None
    definition: ImageDefinition


def make_gallery_id(desk: Desk, group: str, gallery: str) -> ResourceId:
    """The id of a gallery of this lab."""
    return ResourceId(
        subscription=desk.subscription_id,
        group=group,
        namespace=NAMESPACE,
        parts=(("galleries", gallery),),
    )


def is_default_gallery(identifier: ResourceId) -> bool:
    """Is this the gallery `labctl` in the group `labctl`?"""
    group = (identifier.group or "").lower()
    return group == DEFAULT_GROUP and identifier.names[0].lower() == DEFAULT_GALLERY


def check_gallery_name(name: str) -> None:
    """Raises ArmError (InvalidParameter)."""
    if not _GALLERY_NAME.fullmatch(name):
        raise invalid(
            f"The gallery name '{name[:90]}' is not 1 to 80 letters, digits, periods and "
            "underscores that begin and end with a letter or digit.",
            target="galleryName",
        )


def read_definition_name(name: str) -> str:
    """The labctl definition that an image name of Azure's clients means, not whether it exists.

    Raises ArmError (InvalidParameter) for a name that no definition can have.
    """
    definition = name.lower()
    if not re.fullmatch(NAME_PATTERN, definition):
        raise invalid(
            f"The image name '{name[:90]}' cannot be the name of an image definition of this lab: "
            "1 to 40 letters, digits and hyphens, a letter first, no hyphen last; case does not "
            "count.",
            target="galleryImageName",
        )
    return definition


def read_version_name(name: str) -> VersionNumber:
    """Raises ArmError (InvalidParameter) for what is not Major.Minor.Patch."""
    try:
        return VersionNumber.parse(name)
    except InvalidError as error:
        raise invalid(
            f"The gallery image version name '{name[:90]}' is not Major.Minor.Patch of three "
            "32-bit numbers without leading zeros, such as 1.4.0.",
            target="galleryImageVersionName",
        ) from error


def find_gallery(connection: Connection, identifier: ResourceId) -> Gallery | None:
    """The gallery with this id, in any case."""
    row = find_resource(connection, str(identifier))
    if row is None and not is_default_gallery(identifier):
        return None
    return Gallery(id=_with_case(identifier, row), row=row)


def get_gallery(connection: Connection, identifier: ResourceId) -> Gallery:
    """Raises ArmError (ResourceNotFound)."""
    found = find_gallery(connection, identifier)
    if found is None:
        raise resource_not_found(str(identifier))
    return found


def load_gallery_ids(connection: Connection, desk: Desk) -> list[ResourceId]:
    """Of all galleries, the default one among them, by id."""
    rows = load_resources(connection, type=GALLERY)
    found = {row.key: _read_id(row) for row in rows}
    default = make_gallery_id(desk, DEFAULT_GROUP, DEFAULT_GALLERY)
    found.setdefault(default.key, default)
    return [found[key] for key in sorted(found)]


def load_places(connection: Connection, desk: Desk) -> dict[str, GalleryImage]:
    """All image definitions by name, each with its place."""
    rows = {row.name.lower(): row for row in load_resources(connection, type=IMAGE)}
    return {
        each.name: _place(desk, each, rows.get(each.name)) for each in load_definitions(connection)
    }


def find_place(connection: Connection, desk: Desk, definition: str) -> GalleryImage | None:
    """One definition and its place."""
    found = find_definition(connection, definition)
    if found is None:
        return None
    rows = load_resources(connection, type=IMAGE)
    return _place(desk, found, next((r for r in rows if r.name.lower() == definition), None))


def find_gallery_image(
    connection: Connection, desk: Desk, identifier: ResourceId
) -> GalleryImage | None:
    """The definition with this id (.../galleries/G/images/I), in any case."""
    place = find_place(connection, desk, identifier.name.lower())
    return place if place is not None and place.id.key == identifier.key else None


def get_gallery_image(connection: Connection, desk: Desk, identifier: ResourceId) -> GalleryImage:
    """Raises ArmError (ResourceNotFound)."""
    found = find_gallery_image(connection, desk, identifier)
    if found is None:
        raise resource_not_found(str(identifier))
    return found


def refuse_followed(connection: Connection, definition: str, target: str) -> None:
    """Raises ArmError (409) for a definition whose versions are waited for."""
    users = [
        row.name
        for row in load_scale_sets(connection)
        if load_models(connection, row.name)[row.model_revision].image.definition == definition
    ]
    if users:
        raise conflict(
            f"The image '{definition}' is what these scale sets follow: "
            f"{', '.join(users[:20])}. Give them another image, or delete them first.",
            target=target,
        )
    if find_follow(connection, definition) is not None:
        raise conflict(
            f"The image '{definition}' follows a publisher and would come back; "
            f"run: labctl image unfollow {definition}",
            target=target,
        )


def check_type(identifier: ResourceId, target: str, *, hint: str) -> None:
    """Is this the id of an image, or of a version, in a gallery? Raises ArmError."""
    if identifier.type.lower() in {IMAGE.lower(), VERSION.lower()}:
        return
    raise not_supported(
        f"'{target}' names a resource of the type '{identifier.type[:200]}', which a lab does not "
        f"have. {hint}",
        target=target,
    )


def without_nulls(document: Mapping[str, Json]) -> dict[str, Json]:
    """What a client leaves out, it may also send as null."""
    return {key: value for key, value in document.items() if value is not None}


def _place(desk: Desk, definition: ImageDefinition, row: ArmResource | None) -> GalleryImage:
    if row is not None:
        return GalleryImage(id=_read_id(row), row=row, definition=definition)
    default = make_gallery_id(desk, DEFAULT_GROUP, DEFAULT_GALLERY)
    return GalleryImage(
        id=default.child("images", definition.name), row=None, definition=definition
    )


def _with_case(identifier: ResourceId, row: ArmResource | None) -> ResourceId:
    return identifier if row is None else _read_id(row)


def _read_id(row: ArmResource) -> ResourceId:
    return parse_id(row.id)
