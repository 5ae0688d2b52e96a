"""Image versions as the API shows them: what the gallery has, and what is on its way into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from labctl.api.galleries import VERSION, GalleryImage
from labctl.api.respond import make_etag
from labctl.arm.errors import resource_not_found
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.image_source import mask_uri
from labctl.controller.image_import import IMPORTING
from labctl.errors import InvalidError
from labctl.model.image import ImageVersion, VersionNumber
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import ArmResource, find_resource, load_resources
from labctl.store.gallery import find_version, load_versions
from labctl.store.operations import Operation, OperationStatus, find_operation

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryVersion:
    """One version: a row of the API, an image of the gallery, or both."""

    id: ResourceId
    number: VersionNumber
    row: ArmResource | None
    image: ImageVersion | None  # None: not here yet, or never
    operation: Operation | None  # that is to bring the file
    place: GalleryImage

    @property
    def is_creating(self) -> bool:
        """Is its file on its way?"""
        return self.operation is not None and self.operation.is_open

    @property
    def state(self) -> str:
        """In the words of Azure's clients."""
        if self.is_creating:
            return "Creating"
        return "Succeeded" if self.image is not None else "Failed"

    @property
    def location(self) -> str:
        """Of itself, of its definition, or the default."""
        for row in (self.row, self.place.row):
            if row is not None and "location" in row.document:
                return str(row.document["location"])
        return DEFAULT_REGION


def find_gallery_version(
    connection: Connection, place: GalleryImage, number: VersionNumber
) -> GalleryVersion | None:
    """One version of a definition."""
    identifier = place.id.child("versions", str(number))
    image = find_version(connection, place.definition.name, number)
    row = find_resource(connection, str(identifier))
    return _make(connection, place, number, row, image)


def get_gallery_version(
    connection: Connection, place: GalleryImage, number: VersionNumber
) -> GalleryVersion:
    """Raises ArmError (ResourceNotFound)."""
    found = find_gallery_version(connection, place, number)
    if found is None:
        raise resource_not_found(str(place.id.child("versions", str(number))))
    return found


def load_gallery_versions(connection: Connection, place: GalleryImage) -> list[GalleryVersion]:
    """All versions of a definition by number."""
    images = {each.version: each for each in load_versions(connection, place.definition.name)}
    rows: dict[VersionNumber, ArmResource] = {}
    for row in load_resources(connection, type=VERSION, below=str(place.id)):
        try:
            rows[VersionNumber.parse(row.name)] = row
        except InvalidError:  # no version has this name, so no version is missing
            continue
    found = (
        _make(connection, place, number, rows.get(number), images.get(number))
        for number in sorted({*images, *rows})
    )
    return [each for each in found if each is not None]


def render_version(version: GalleryVersion, *, with_replication: bool = False) -> dict[str, Json]:
    """As GET gives it."""
    document = _render_model(version)
    properties = document["properties"] | {"provisioningState": version.state}
    if with_replication:
        properties["replicationStatus"] = _render_replication(version)
    if version.state == "Failed":
        properties["labctl"] = {"error": _find_error(version)}
    return document | {"properties": properties, "etag": make_version_etag(version)}


def make_version_etag(version: GalleryVersion) -> str:
    """Of the model, not of how far it has come."""
    return make_etag(_render_model(version))


def _make(
    connection: Connection,
    place: GalleryImage,
    number: VersionNumber,
    row: ArmResource | None,
    image: ImageVersion | None,
) -> GalleryVersion | None:
    importing = None if row is None else row.document.get(IMPORTING)
    operation = None if importing is None else find_operation(connection, importing)
    if image is None and importing is None:
        return None  # deleted by `labctl image delete`; the row is of no use any more
    return GalleryVersion(
        id=place.id.child("versions", str(number)) if row is None else parse_id(row.id),
        number=number,
        row=row,
        image=image,
        operation=operation,
        place=place,
    )


def _render_model(version: GalleryVersion) -> dict[str, Json]:
    kept: dict[str, Json] = {} if version.row is None else version.row.document
    properties = dict(kept.get("properties") or {})
    publishing = dict(properties.get("publishingProfile") or {})
    storage = dict(properties.get("storageProfile") or {})
    disk = dict(storage.get("osDiskImage") or {})
    source = disk.get("source") or {}
    if "uri" in source:
        disk["source"] = {**source, "uri": mask_uri(source["uri"])}
    if disk:
        storage["osDiskImage"] = disk
    image = version.image
    # What is on its way is shown as it was wished for: nothing of it is in the gallery yet.
    if image is not None and not version.is_creating:
        publishing = _render_publishing(image, publishing)
        disk["sizeInGB"] = -(-image.virtual_size // 2**30)
        disk.setdefault("hostCaching", "ReadOnly")
        storage["osDiskImage"] = disk
        properties["labctl"] = {
            "digest": image.digest,
            "fileSize": image.file_size,
            "virtualSize": image.virtual_size,
            "buildId": image.build_id,
            "isPublished": image.published_at is not None,
        }
    properties["publishingProfile"] = publishing
    properties["storageProfile"] = storage
    document: dict[str, Json] = {
        "id": str(version.id),
        "name": str(version.number),
        "type": VERSION,
        "location": version.location,
    }
    if "tags" in kept:
        document["tags"] = kept["tags"]
    return document | {"properties": properties}


def _render_publishing(image: ImageVersion, kept: Mapping[str, Json]) -> dict[str, Json]:
    spelled = {
        str(each.get("name", "")).replace(" ", "").lower(): each
        for each in kept.get("targetRegions") or ()
    }
    found = {key: value for key, value in kept.items() if key != "endOfLifeDate"}
    found["targetRegions"] = [
        {"name": replica.region}
        | spelled.get(replica.region, {})
        | {"excludeFromLatest": replica.excluded_from_latest}
        for replica in image.replicas
    ]
    # What was imported without being published cannot be `latest` either.
    found["excludeFromLatest"] = image.published_at is None or image.excluded_from_latest
    found["publishedDate"] = (image.published_at or image.created_at).isoformat()
    if image.end_of_life is not None:
        found["endOfLifeDate"] = image.end_of_life.isoformat()
    return found


def _render_replication(version: GalleryVersion) -> dict[str, Json]:
    states = {"Creating": "Replicating", "Succeeded": "Completed", "Failed": "Failed"}
    state = states[version.state]
    publishing = _render_model(version)["properties"]["publishingProfile"]
    regions = [str(each.get("name")) for each in publishing.get("targetRegions") or ()]
    error = _find_error(version) if state == "Failed" else {}
    return {
        "aggregatedState": "InProgress" if state == "Replicating" else state,
        "summary": [
            {
                "region": region,
                "state": state,
                "details": str(error.get("message", "")),
                "progress": 100 if state == "Completed" else 0,
            }
            for region in regions or [version.location]
        ],
    }


def _find_error(version: GalleryVersion) -> dict[str, Json]:
    operation = version.operation
    if operation is not None and operation.error is not None:
        return operation.error
    if operation is not None and operation.status is OperationStatus.CANCELED:
        return {"code": "OperationPreempted", "message": "The import was canceled."}
    return {"code": "ImportFailed", "message": "The import failed; PUT the version again."}
