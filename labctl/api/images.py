"""Which image a reference of Azure's clients means, and how to refer to an image in their way."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.api.galleries import (
    DEFAULT_GALLERY,
    VERSION,
    check_type,
    find_gallery_image,
    find_place,
    make_gallery_id,
    read_version_name,
    without_nulls,
)
from labctl.api.platform_names import LAB_PUBLISHER, LAB_SKU, load_platform_names
from labctl.arm.errors import ArmError, invalid, not_supported
from labctl.arm.ids import ResourceId, parse_id
from labctl.model.image import LATEST
from labctl.store.gallery import find_version, load_versions

Json = Any  # what json.loads gives

_NAMES = ("publisher", "offer", "sku")
_ELSEWHERE = {  # what Azure has beside galleries of one's own and platform images
    "sharedGalleryImageId": "a gallery that another subscription shares",
    "communityGalleryImageId": "a community gallery",
}
_WAYS = (
    "Name an image of a gallery (.../galleries/G/images/I, or .../versions/V), or a platform image "
    f'by publisher, offer, sku and version, for example "{LAB_PUBLISHER}", DEFINITION, '
    f'"{LAB_SKU}", "{LATEST}".'
)


class Form(StrEnum):
    """The two ways of naming an image."""

    ID = "id"
    PUBLISHER = "publisher"  # with offer, sku and version


def find_form(reference: Mapping[str, Json]) -> Form:
    """In which way a reference names its image."""
    return Form.ID if reference.get("id") is not None else Form.PUBLISHER


def find_image(
    connection: Connection, reference: Json, *, target: str, desk: Desk
) -> tuple[str, str]:
    """The definition of labctl, and "latest" or a number, that a reference means.

    Whether `latest` has a meaning in a region is not asked here. `target` is the JSON path of the
    reference. Raises ArmError (GalleryImageNotFound, PlatformImageNotFound, InvalidParameter,
    NotSupportedInLab).
    """
    if not isinstance(reference, dict):
        raise invalid(f"'{target}' must be an object. {_WAYS}", target=target)
    given = without_nulls(reference)
    for field, what in _ELSEWHERE.items():
        if field in given:
            raise not_supported(
                f"'{target}.{field}' names an image of {what}, which a lab does not have. {_WAYS}",
                target=f"{target}.{field}",
            )
    by_name = [field for field in _NAMES if field in given]
    if "id" in given and by_name:
        raise invalid(
            f"'{target}' has both 'id' and '{by_name[0]}', which may name two images. {_WAYS}",
            target=target,
        )
    if "id" in given:
        return _find_by_id(connection, given, target, desk)
    if not by_name:
        raise invalid(f"'{target}' names no image. {_WAYS}", target=target)
    return _find_by_name(connection, given, target)


def describe_image(
    connection: Connection,
    definition: str,
    version: str,
    form: Form | None = None,
    *,
    desk: Desk,
    written: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Refer to an image in the way that the client used.

    `written` is what the client wrote last. While it still means the image, it is the answer, in
    the client's case; else, unless a `form` is named, the answer has its form, and the publisher
    that it named.
    """
    kept = without_nulls(written or {})
    kept.pop("exactVersion", None)
    if _means(connection, kept, (definition, version), desk):
        return kept
    if kept and form is None:
        form = find_form(kept)
        if form is Form.PUBLISHER:
            other = {**kept, "version": version}
            if _means(connection, other, (definition, version), desk):
                return other
    if form is Form.PUBLISHER:
        return {
            "publisher": LAB_PUBLISHER,
            "offer": definition,
            "sku": LAB_SKU,
            "version": version,
        }
    identifier = make_image_id(connection, desk, definition)
    if version != LATEST:
        identifier = identifier.child("versions", version)
    return {"id": str(identifier)}


def _means(
    connection: Connection, reference: Mapping[str, Json], image: tuple[str, str], desk: Desk
) -> bool:
    try:
        return find_image(connection, dict(reference), target="id", desk=desk) == image
    except ArmError:
        return False  # what it named is gone


def make_image_id(connection: Connection, desk: Desk, definition: str) -> ResourceId:
    """The id of a definition in its gallery, or in the default one if it is gone."""
    place = find_place(connection, desk, definition)
    if place is not None:
        return place.id
    return make_gallery_id(desk, DEFAULT_GROUP, DEFAULT_GALLERY).child("images", definition)


def _find_by_id(
    connection: Connection, given: Mapping[str, Json], target: str, desk: Desk
) -> tuple[str, str]:
    at = f"{target}.id"
    identifier = parse_id(given["id"], target=at)
    check_type(identifier, at, hint=_WAYS)
    image, version = identifier, LATEST
    if identifier.type.lower() == VERSION.lower() and identifier.parent is not None:
        image, version = identifier.parent, identifier.name
    named = given.get("version")
    if named is not None and version == LATEST:
        version = named if isinstance(named, str) else str(named)
    elif named is not None and named != version:
        raise invalid(
            f"'{target}' names the version '{str(named)[:40]}' beside an id that ends with "
            f"'{version[:40]}'. Leave 'version' out.",
            target=f"{target}.version",
        )
    version = _read_version(version, at)
    place = None
    if identifier.subscription.lower() == desk.subscription_id.lower():
        place = find_gallery_image(connection, desk, image)
    if place is None:
        raise _gallery_image_not_found(identifier, "there is no such image definition", at)
    definition = place.definition.name
    reason = _find_reason_against(connection, definition, version)
    if reason:
        raise _gallery_image_not_found(identifier, reason, at)
    return definition, version


def _find_by_name(
    connection: Connection, given: Mapping[str, Json], target: str
) -> tuple[str, str]:
    words = []
    for field in (*_NAMES, "version"):
        value = given.get(field)
        if not isinstance(value, str) or not value:
            raise invalid(
                f"Required parameter '{target}.{field}' is missing (null) or not a text.",
                target=f"{target}.{field}",
            )
        words.append(value)
    publisher, offer, sku, named = words
    version = _read_version(named, f"{target}.version")
    names = load_platform_names(connection)
    found = names.get((publisher.lower(), offer.lower(), sku.lower()))
    urn = ":".join(words)[:300]
    if found is None:
        known = ", ".join(sorted({f"{n.publisher}:{n.offer}:{n.sku}" for n in names.values()})[:20])
        reason = f"this lab has: {known}" if known else "this lab has no images"
        raise _platform_image_not_found(urn, reason, target)
    against = _find_reason_against(connection, found.definition, version)
    if against:
        raise _platform_image_not_found(urn, against, target)
    return found.definition, version


def _read_version(text: str, target: str) -> str:
    if text.lower() == LATEST:
        return LATEST
    try:
        return str(read_version_name(text))
    except ArmError as error:
        raise invalid(
            f"'{target}': the version '{text[:40]}' is neither '{LATEST}' nor Major.Minor.Patch.",
            target=target,
        ) from error


def _find_reason_against(connection: Connection, definition: str, version: str) -> str | None:
    if version == LATEST:
        return None if load_versions(connection, definition) else "the image has no versions yet"
    if find_version(connection, definition, read_version_name(version)) is not None:
        return None
    there = ", ".join(str(each.version) for each in load_versions(connection, definition)[-10:])
    return f"the image has no version {version}" + (f", but {there}" if there else "")


def _gallery_image_not_found(identifier: ResourceId, reason: str, target: str) -> ArmError:
    return ArmError(
        404,
        "GalleryImageNotFound",
        f"The gallery image {str(identifier)[:600]} is not available: {reason}.",
        target=target,
    )


def _platform_image_not_found(urn: str, reason: str, target: str) -> ArmError:
    return ArmError(
        404,
        "PlatformImageNotFound",
        f"The platform image '{urn}' is not available: {reason}. Verify that all fields in the "
        "storage profile are correct.",
        target=target,
    )
