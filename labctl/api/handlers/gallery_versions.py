"""Image versions in galleries: made from files, addresses or each other; offered; deleted."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.galleries import (
    VERSION,
    GalleryImage,
    find_gallery_image,
    get_gallery,
    get_gallery_image,
    make_gallery_id,
    read_version_name,
)
from labctl.api.gallery_versions import (
    GalleryVersion,
    find_gallery_version,
    get_gallery_version,
    load_gallery_versions,
    make_version_etag,
    render_version,
)
from labctl.api.gallery_write import Wanted, read_wanted
from labctl.api.groups import check_group
from labctl.api.respond import accept, answer_page, check_conditions
from labctl.api.route import Route
from labctl.api.version_source import begin_version, require_same_source, restore_uri
from labctl.arm.errors import conflict, invalid, not_supported, resource_not_found
from labctl.arm.gallery_body import VersionBody
from labctl.arm.image_source import Source, read_source
from labctl.arm.tracked import read_location
from labctl.controller.image_import import (
    IMPORTING,
    forget_download,
    offer_as_wished,
)
from labctl.controller.images import ensure_file_forgotten
from labctl.model.access import Scope
from labctl.model.image import VersionNumber
from labctl.store.arm_resources import remove_resource, save_resource
from labctl.store.gallery import remove_version
from labctl.store.operations import Operation

Json = Any  # what json.loads gives


def list_versions(desk: Desk, call: Call) -> Answer:
    """All versions of a definition by number."""
    with desk.database.read() as connection:
        place = _get_place(connection, desk, call)
        versions = load_gallery_versions(connection, place)
    return answer_page(call, versions, render=render_version)


def get(desk: Desk, call: Call) -> Answer:
    """One version; with $expand=ReplicationStatus, where it is."""
    number = read_version_name(call.parameters["version"])
    with desk.database.read() as connection:
        place = _get_place(connection, desk, call)
        version = get_gallery_version(connection, place, number)
    expand = call.query.get("$expand", "").lower()
    return _answer(version, with_replication="replicationstatus" in expand.split(","))


def put(desk: Desk, call: Call) -> Answer:
    """Make a version, or change what may be changed of one."""
    return _write(desk, call)


def patch(desk: Desk, call: Call) -> Answer:
    """Change a version."""
    return _write(desk, call, must_exist=True)


def _write(desk: Desk, call: Call, *, must_exist: bool = False) -> Answer:
    number = read_version_name(call.parameters["version"])
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"], is_written=True)
        place = _get_place(connection, desk, call)
        before = find_gallery_version(connection, place, number)
        if before is None and must_exist:
            raise resource_not_found(str(place.id.child("versions", str(number))))
        check_conditions(call, None if before is None else make_version_etag(before))
        wanted = read_wanted(
            call,
            VersionBody,
            None if before is None else render_version(before),
            may_move=before is not None and before.row is None,
        )
        wanted.document["properties"].pop("labctl", None)
        source = _check(wanted)
        if before is not None:
            restore_uri(before, wanted.document)
        operation = None
        if before is None or before.state == "Failed":
            operation = begin_version(connection, desk, call, place, number, source)
        else:
            require_same_source(connection, desk, before, source, now=call.now)
            _require_regions_kept(before, wanted)
            if before.is_creating:
                operation = before.operation
        _save(connection, call, place, before, number, wanted, operation)
        if operation is None:
            offer_as_wished(
                connection,
                place.definition.name,
                number,
                wanted.body.properties.publishing_profile,
                now=call.now,
            )
        saved = get_gallery_version(connection, place, number)
    status = 201 if before is None else 200
    if operation is None:
        return _answer(saved, status=status)
    body = render_version(saved)
    return accept(desk, call, operation, status=status, body=body, location=saved.location)


def delete(desk: Desk, call: Call) -> Answer:
    """Delete a version that nothing uses, and its file unless another version has the same."""
    number = read_version_name(call.parameters["version"])
    with desk.database.write() as connection:
        check_group(connection, desk, call.parameters["group"])
        gallery = make_gallery_id(desk, call.parameters["group"], call.parameters["gallery"])
        place = find_gallery_image(
            connection, desk, gallery.child("images", call.parameters["image"])
        )
        version = None if place is None else find_gallery_version(connection, place, number)
        if place is None or version is None:
            return Answer(status=204)
        check_conditions(call, make_version_etag(version))
        _require_deletable(version, call.now)
        digest = ""
        if version.image is not None:
            digest = remove_version(connection, place.definition.name, number, now=call.now).digest
        remove_resource(connection, str(version.id))
    # A crash from here on leaves files without a row, which the next deletion finds.
    if digest:
        ensure_file_forgotten(desk.settings, desk.database, digest)
    elif version.row is not None:
        forget_download(desk.settings, version.row.document)
    return Answer(status=200)


def _check(wanted: Wanted[VersionBody]) -> Source | None:
    properties = wanted.body.properties
    for value, name in (
        (properties.restore, "restore"),
        (properties.security_profile, "securityProfile"),
        (
            properties.publishing_profile.target_extended_locations,
            "publishingProfile.targetExtendedLocations",
        ),
    ):
        if value:
            raise not_supported(
                f"A lab has nothing that '{name}' could mean; leave it out.",
                target=f"properties.{name}",
            )
    seen = set()
    for place, region in enumerate(properties.publishing_profile.target_regions or ()):
        at = f"properties.publishingProfile.targetRegions[{place}]"
        name = read_location(region.name, target=f"{at}.name")
        if name in seen:
            raise invalid(f"The region '{name}' is named twice.", target=f"{at}.name")
        seen.add(name)
        if region.encryption:
            raise not_supported(
                "A lab does not encrypt images; leave 'encryption' out.", target=f"{at}.encryption"
            )
    return read_source(properties.storage_profile)


def _require_regions_kept(before: GalleryVersion, wanted: Wanted[VersionBody]) -> None:
    """`allowDeletionOfReplicatedLocations: false` forbids to take a version out of a region."""
    safety = wanted.body.properties.safety_profile
    regions = wanted.body.properties.publishing_profile.target_regions
    if safety.allow_deletion_of_replicated_locations is not False or before.image is None:
        return
    after = {read_location(each.name) for each in regions or ()}
    gone = [each.region for each in before.image.replicas if each.region not in after]
    if gone and after:
        raise conflict(
            f"The version {before.image.name} cannot be removed from {', '.join(gone)}: "
            "safetyProfile.allowDeletionOfReplicatedLocations is false.",
            target="properties.publishingProfile.targetRegions",
        )


def _require_deletable(version: GalleryVersion, now: datetime) -> None:
    if version.is_creating:
        raise conflict(
            f"The version '{version.id.name}' is being imported; delete it when that has ended.",
            target=str(version.id),
        )
    if version.row is None or version.image is None:
        return
    kept = (version.row.document.get("properties") or {}).get("safetyProfile") or {}
    end_of_life = version.image.end_of_life
    if kept.get("blockDeletionBeforeEndOfLife") is True and not (
        end_of_life and end_of_life <= now
    ):
        until = f"before {end_of_life:%Y-%m-%d %H:%M} UTC" if end_of_life else "without an end"
        raise conflict(
            f"The version {version.image.name} cannot be deleted {until} of life: "
            "safetyProfile.blockDeletionBeforeEndOfLife is true.",
            target=str(version.id),
        )


def _save(
    connection: Connection,
    call: Call,
    place: GalleryImage,
    before: GalleryVersion | None,
    number: VersionNumber,
    wanted: Wanted[VersionBody],
    operation: Operation | None,
) -> None:
    identifier = place.id.child("versions", str(number)) if before is None else before.id
    document = wanted.document
    if operation is not None:
        document = document | {IMPORTING: operation.id}
    save_resource(
        connection,
        str(identifier),
        type=VERSION,
        group=call.parameters["group"],
        name=str(number),
        document=document,
        now=call.now,
    )


def _get_place(connection: Connection, desk: Desk, call: Call) -> GalleryImage:
    check_group(connection, desk, call.parameters["group"])
    asked = make_gallery_id(desk, call.parameters["group"], call.parameters["gallery"])
    gallery = get_gallery(connection, asked)
    return get_gallery_image(connection, desk, gallery.id.child("images", call.parameters["image"]))


def _answer(
    version: GalleryVersion, *, status: int = 200, with_replication: bool = False
) -> Answer:
    body = render_version(version, with_replication=with_replication)
    return Answer(status=status, body=body, headers={"ETag": make_version_etag(version)})


_VERSIONS = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/galleries/"
    "{gallery}/images/{image}/versions"
)
_VERSION = f"{_VERSIONS}/{{version}}"
_SCHEMA = {
    "type": "object",
    "properties": {
        "location": {"type": "string"},
        "tags": {"type": ["object", "null"]},
        "properties": {
            "type": "object",
            "properties": {
                "publishingProfile": {
                    "type": "object",
                    "properties": {
                        "targetRegions": {
                            "type": ["array", "null"],
                            "items": {"type": "object", "required": ["name"]},
                        },
                        "excludeFromLatest": {"type": ["boolean", "null"]},
                        "endOfLifeDate": {"type": ["string", "null"]},
                    },
                },
                "storageProfile": {"type": "object"},
                "safetyProfile": {"type": "object"},
            },
        },
    },
}
_LIST = {"type": "object", "required": ["value"], "properties": {"value": {"type": "array"}}}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=_VERSIONS,
        handler=list_versions,
        summary="List the versions of an image definition",
        response=_LIST,
    ),
    Route(
        method="GET",
        path=_VERSION,
        handler=get,
        summary="Show an image version",
        query={"$expand": "ReplicationStatus tells where the version may be used"},
        response=_SCHEMA,
    ),
    Route(
        method="PUT",
        path=_VERSION,
        handler=put,
        scope=Scope.OPERATE,
        summary="Make an image version and publish it, or change where it is offered",
        request={**_SCHEMA, "required": ["location"]},
        response=_SCHEMA,
        statuses=(200, 201),
    ),
    Route(
        method="PATCH",
        path=_VERSION,
        handler=patch,
        scope=Scope.OPERATE,
        summary="Change where an image version is offered",
        request=_SCHEMA,
        response=_SCHEMA,
    ),
    Route(
        method="DELETE",
        path=_VERSION,
        handler=delete,
        scope=Scope.OPERATE,
        summary="Delete an image version that nothing uses",
        statuses=(200, 204),
    ),
)
