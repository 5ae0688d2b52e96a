"""Brings new versions into the gallery by their source, and keeps versions from changing theirs."""

from datetime import datetime
from typing import Any, assert_never

from sqlalchemy import Connection

from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.galleries import GalleryImage
from labctl.api.gallery_versions import GalleryVersion
from labctl.api.gallery_write import refuse_change
from labctl.api.images import find_image
from labctl.arm.errors import ArmError, invalid
from labctl.arm.gallery_body import VersionBody, read_body
from labctl.arm.image_source import (
    WAYS,
    FileSource,
    Source,
    UrlSource,
    VersionSource,
    mask_uri,
    read_source,
)
from labctl.controller.image_import import HAS_ROW, IMAGE_IMPORT, MAY_READ_HOST, check_file
from labctl.errors import InvalidError, NotFoundError, RefusedError
from labctl.model.access import Scope
from labctl.model.image import ImageVersion, VersionNumber
from labctl.model.own_address import is_own_url
from labctl.store.gallery import add_version, find_definition, resolve
from labctl.store.operations import Operation, add_operation

Json = Any  # what json.loads gives

_KIND = "galleryImageVersion"
_SOURCE = "properties.storageProfile"


def begin_version(
    connection: Connection,
    desk: Desk,
    call: Call,
    place: GalleryImage,
    number: VersionNumber,
    source: Source | None,
) -> Operation | None:
    """Bring a new version into the gallery; None: it is there at once. Raises ArmError."""
    name = f"{place.definition.name}/{number}"
    if source is None:
        raise invalid(f"The version {name} is new and names no source. {WAYS}", target=_SOURCE)
    if isinstance(source, VersionSource):
        _copy(connection, desk, call, place, number, source)
        return None
    is_admin = call.principal.scope.allows(Scope.ADMIN)
    if isinstance(source, UrlSource) and is_own_url(source.url) and not is_admin:
        raise ArmError(
            403,
            "AuthorizationFailed",
            "The address is one of the lab's host itself: only a token with the scope 'admin' may "
            f"name it, and '{call.principal.name}' has '{call.principal.scope}'.",
            target=f"{_SOURCE}.osDiskImage.source.uri",
        )
    if isinstance(source, FileSource):
        try:
            check_file(desk.settings, source, may_read_host=is_admin)
        except RefusedError as error:
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"{error.brief}: {error.hint}.",
                target=f"{_SOURCE}.osDiskImage.source.uri",
            ) from error
        except (NotFoundError, InvalidError) as error:  # not the version is what is not found
            raise invalid(
                f"{error.brief}. {WAYS}", target=f"{_SOURCE}.osDiskImage.source.uri"
            ) from error
    return add_operation(
        connection,
        kind=IMAGE_IMPORT,
        resource=str(place.id.child("versions", str(number))),
        goal={MAY_READ_HOST: is_admin, HAS_ROW: place.row is not None},
        who=call.principal.name,
        now=call.now,
    )


def _copy(
    connection: Connection,
    desk: Desk,
    call: Call,
    place: GalleryImage,
    number: VersionNumber,
    source: VersionSource,
) -> None:
    """The same file under another name."""
    image = _resolve(connection, desk, source, now=call.now)
    other = find_definition(connection, image.definition)
    if other is not None and other.os_type is not place.definition.os_type:
        raise invalid(
            f"The image {image.name} is for {other.os_type}, not for {place.definition.os_type}.",
            target=f"{_SOURCE}.source.id",
        )
    add_version(
        connection,
        ImageVersion(
            definition=place.definition.name,
            version=number,
            digest=image.digest,
            file_size=image.file_size,
            virtual_size=image.virtual_size,
            created_at=call.now,
            published_at=None,
            build_id=image.build_id,
            source=f"the same file as {image.name}",
        ),
    )


def _resolve(
    connection: Connection, desk: Desk, source: VersionSource, *, now: datetime
) -> ImageVersion:
    reference = {"id": str(source.id)}
    definition, version = find_image(connection, reference, target=f"{_SOURCE}.source", desk=desk)
    return resolve(connection, definition, version, now=now)


def restore_uri(before: GalleryVersion, document: dict[str, Json]) -> None:
    """Put the query of the address back, which no client is told; in place."""
    if before.row is None:
        return
    kept, wanted = _find_disk(before.row.document), _find_disk(document)
    uri = kept.get("uri")
    if uri is not None and wanted.get("uri") == mask_uri(uri):
        wanted["uri"] = uri


def _find_disk(document: dict[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = document.get("properties") or {}
    for name in ("storageProfile", "osDiskImage", "source"):
        found = found.get(name) or {}
    return found


def require_same_source(
    connection: Connection,
    desk: Desk,
    before: GalleryVersion,
    source: Source | None,
    *,
    now: datetime,
) -> None:
    """What is sent again may name its source again; a version never changes."""
    kept = None
    if before.row is not None:
        document = {"properties": before.row.document.get("properties") or {}}
        kept = read_source(read_body(VersionBody, document).properties.storage_profile)
    match source:
        case None:
            return
        case UrlSource():
            is_same = isinstance(kept, UrlSource) and kept.checksum == source.checksum
        case FileSource():
            is_same = kept == source
        case VersionSource():
            is_same = isinstance(kept, VersionSource) and kept.id.key == source.id.key
            if not is_same and before.image is not None:
                image = _resolve(connection, desk, source, now=now)
                is_same = image.digest == before.image.digest
        case _:
            assert_never(source)
    if not is_same:
        refuse_change(f"{_SOURCE}.source", before=kept, after=source, kind=_KIND)
