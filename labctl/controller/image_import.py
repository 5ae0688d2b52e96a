"""Imports image files that the API was asked for: verified, and offered as they were wished for.

The wish is a row of the API. It names its operation while the file is not there; what is found in
the store decides what is next, so that an import which was killed goes on and ends only once.
"""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from labctl.arm.gallery_body import Publishing, VersionBody, read_body
from labctl.arm.ids import parse_id
from labctl.arm.image_source import FileSource, UrlSource, mask_uri, read_source
from labctl.arm.tracked import read_location
from labctl.controller.clock import now as read_clock
from labctl.controller.images import ensure_file_forgotten, import_image
from labctl.controller.operations import Ending
from labctl.drivers.blobs import Format, delete_abandoned
from labctl.drivers.failpoint import reach
from labctl.drivers.publishers.addresses import Mirror
from labctl.drivers.publishers.download import (
    downloading,
    ensure_forgotten,
    ensure_others_forgotten,
    list_parts,
)
from labctl.drivers.publishers.failure import UntrustedError
from labctl.drivers.publishers.transport import Transport
from labctl.drivers.publishers.unpack import unpacking
from labctl.errors import HostError, InvalidError, LabError, NotFoundError, RefusedError
from labctl.model.image import ImageDefinition, VersionNumber
from labctl.model.publisher import Publisher
from labctl.settings import Settings
from labctl.store import gallery, offers
from labctl.store.arm_resources import ArmResource, find_resource, load_resources, save_resource
from labctl.store.database import Database
from labctl.store.operations import Operation

Json = Any  # what json.loads gives

IMAGE_IMPORT = "image-import"  # the kind of operation
VERSION = "Microsoft.Compute/galleries/images/versions"
IMPORTING = "importing"  # in the row: the operation that is to bring the file
HAS_ROW = "hasRow"  # in the goal: the definition was made by the API, too
MAY_READ_HOST = "mayReadHost"  # in the goal: files outside of the import directory, too
_GLANCE = 0.5  # seconds
_RESERVE = 2**30  # bytes that stay free for what runs
_PUBLISHER = "import"  # LABCTL_MIRROR_IMPORT stands in for every host


class _StoppedError(Exception):
    """labctl ends; the import goes on at its next start."""


def ensure_import_dir(settings: Settings) -> Path:
    """Make the directory for files to import, for this user only. Raises HostError."""
    folder = settings.import_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make the directory {str(folder)!r}", detail=str(error)) from error
    return folder


def check_file(settings: Settings, source: FileSource, *, may_read_host: bool) -> Path:
    """The file itself, without symbolic links; it must lie in the import directory.

    With `may_read_host` it may lie anywhere. Raises NotFoundError, InvalidError, and RefusedError
    for a file that lies elsewhere; whether there is one is not told then.
    """
    folder = settings.import_dir
    try:
        path = source.path.resolve(strict=True)
        is_inside = path.is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError
        path, is_inside = None, source.path.is_relative_to(folder)
    if not (is_inside or may_read_host):
        raise RefusedError(
            f"file {str(source.path)!r} is not in {str(folder)!r}",
            hint="put it there; other files of this host need a token with the scope admin",
        )
    if path is None:
        raise NotFoundError(
            f"file {str(source.path)!r} does not exist", hint=f"put it into {str(folder)!r}"
        )
    if not path.is_file():
        raise InvalidError(f"file {str(source.path)!r} is not a regular file")
    return path


class ImageImport:
    """The step for operations of the kind `image-import`; slow."""

    def __init__(self, settings: Settings, database: Database, stop: threading.Event) -> None:
        self._settings = settings
        self._database = database
        self._stop = stop

    def __call__(self, operation: Operation) -> Ending | None:
        """Bring the file into the gallery, then offer it. Raises LabError."""
        with self._database.read() as connection:
            row = find_resource(connection, operation.resource)
            definition, version = _name_of(operation.resource)
            known = gallery.find_definition(connection, definition)
            there = gallery.find_version(connection, definition, version)
        if row is not None and IMPORTING not in row.document and there is not None:
            return Ending()  # killed after the offer
        if row is None or row.document.get(IMPORTING) != operation.id:
            forget_unwanted_downloads(self._settings, self._database)
            return Ending(is_canceled=True)
        if known is None:
            raise NotFoundError(f"image definition {definition!r} is gone")
        source = read_source(_read_wish(row).properties.storage_profile)
        if not isinstance(source, UrlSource | FileSource):
            raise InvalidError(f"image {definition}/{version} has no file to import")
        # There already: killed after the import, before it was offered.
        if there is None or there.source != source.origin or there.published_at is not None:
            try:
                if not self._bring(source, known, version, operation.goal):
                    return None
            except _StoppedError:
                return None
            except LabError as error:
                _mask(error, source)
                raise
        elif isinstance(source, UrlSource):
            ensure_forgotten(downloads_dir(self._settings), source.url)
        return self._offer(operation)

    def _bring(
        self,
        source: UrlSource | FileSource,
        definition: ImageDefinition,
        version: VersionNumber,
        goal: Mapping[str, Json],
    ) -> bool:
        """False: another import has the download in hand."""
        delete_abandoned(self._settings)  # rests of imports that were killed
        forget_unwanted_downloads(self._settings, self._database)
        with ExitStack() as stack:
            if isinstance(source, UrlSource):
                found = self._download(source, stack)
                if found is None:
                    return False
                path = found
                reach("import:fetched")
            else:
                path = check_file(
                    self._settings, source, may_read_host=goal.get(MAY_READ_HOST) is True
                )
                _verify(path, source)
            try:
                import_image(
                    self._settings,
                    self._database,
                    path,
                    definition=ImageDefinition(name=definition.name, os_type=definition.os_type),
                    version=version,
                    publish=False,
                    now=read_clock(),
                    source_format=Format.RAW if source.is_raw else Format.QCOW2,
                    origin=source.origin,
                )
            except InvalidError as error:
                raise InvalidError(
                    error.brief,
                    detail=error.detail,
                    hint="nothing was imported; a raw disk needs a name that ends with .raw",
                ) from error
            reach("import:stored")
        return True

    def _download(self, source: UrlSource, stack: ExitStack) -> Path | None:
        folder = downloads_dir(self._settings)
        folder.mkdir(parents=True, exist_ok=True)
        transport = _open_transport(source)
        stack.callback(transport.close)
        stack.enter_context(self._cut_at_stop(transport))
        try:
            path = stack.enter_context(
                downloading(
                    transport,
                    source.url,
                    folder,
                    checksum=source.checksum,
                    size=None,
                    say=lambda _: None,
                    show=lambda *_: self._require_time_and_room(),
                )
            )
        except RefusedError:
            return None
        except LabError:
            self._require_time()  # hanging up makes errors of its own
            raise
        return stack.enter_context(
            unpacking(
                path,
                source.compression,
                name=source.url.partition("?")[0],
                show=lambda *_: self._require_time_and_room(),
            )
        )

    def _require_time(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _require_time_and_room(self) -> None:
        """How large it gets, nobody may know; a disk that is full stops every guest."""
        self._require_time()
        free = shutil.disk_usage(self._settings.cache_dir).free
        if free < _RESERVE:
            raise HostError(
                f"no room for the image: {free >> 20} MiB are free on the server's host",
                detail=f"{_RESERVE >> 20} MiB must stay free",
                hint="free space there, then ask for the version again",
            )

    @contextmanager
    def _cut_at_stop(self, transport: Transport) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_GLANCE):
                if self._stop.is_set():
                    transport.hang_up()
                    return

        thread = threading.Thread(target=watch, name="import-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _offer(self, operation: Operation) -> Ending:
        now = read_clock()
        definition, version = _name_of(operation.resource)
        digest = ""
        with self._database.write() as connection:
            row = _find_wish(connection, operation)
            if row is None:
                digest = _drop_unwanted(connection, operation, now=now)
            else:
                publishing = _read_wish(row).properties.publishing_profile
                offer_as_wished(connection, definition, version, publishing, now=now)
                document = _without_secrets(row.document)
                save_resource(
                    connection,
                    row.id,
                    type=row.type,
                    group=row.group,
                    name=row.name,
                    document=document,
                    now=now,
                )
        if digest:
            ensure_file_forgotten(self._settings, self._database, digest)
        return Ending(is_canceled=row is None)


def _drop_unwanted(connection: Connection, operation: Operation, *, now: datetime) -> str:
    """Forget what came in after its resource group had been deleted; tell the file's digest."""
    definition, version = _name_of(operation.resource)
    image = gallery.find_version(connection, definition, version)
    if image is None or image.published_at is not None:
        return ""
    gallery.remove_version(connection, definition, version, now=now)
    parent = parse_id(operation.resource).parent
    is_orphan = operation.goal.get(HAS_ROW) is True and (
        parent is None or find_resource(connection, str(parent)) is None
    )
    if is_orphan and not gallery.load_versions(connection, definition):
        gallery.remove_definition(connection, definition)
    return image.digest


def offer_as_wished(
    connection: Connection,
    definition: str,
    version: VersionNumber,
    publishing: Publishing,
    *,
    now: datetime,
) -> None:
    """Publish a version in the regions and with the end of life that a body names.

    One that is to stay out of `latest` is not published, or excluded if it was. Raises
    NotFoundError.
    """
    regions = {
        read_location(each.name, target="properties.publishingProfile.targetRegions.name"): bool(
            each.exclude_from_latest
        )
        for each in publishing.target_regions or ()
    }
    offers.set_regions(connection, definition, version, regions, now=now)
    offers.set_end_of_life(connection, definition, version, publishing.end_of_life_date, now=now)
    if not publishing.exclude_from_latest:
        offers.publish_version(connection, definition, version, now)
    elif gallery.get_version(connection, definition, version, now=now).published_at is not None:
        offers.exclude_version(connection, definition, version, now=now)


def forget_download(settings: Settings, document: Mapping[str, Json]) -> None:
    """Delete what an import that failed has fetched."""
    body = read_body(VersionBody, {"properties": document.get("properties") or {}})
    source = read_source(body.properties.storage_profile)
    if isinstance(source, UrlSource):
        ensure_forgotten(downloads_dir(settings), source.url)


def forget_unwanted_downloads(settings: Settings, database: Database) -> None:
    """Delete what has come of files that nobody wishes for any more."""
    folder = downloads_dir(settings)
    found = list_parts(folder)  # before the wishes are read: each had one when it began
    if not found:
        return
    with database.read() as connection:
        rows = load_resources(connection, type=VERSION)
    sources = [
        read_source(_read_wish(row).properties.storage_profile)
        for row in rows
        if IMPORTING in row.document
    ]
    kept = {source.url for source in sources if isinstance(source, UrlSource)}
    ensure_others_forgotten(folder, found, kept=kept)


def downloads_dir(settings: Settings) -> Path:
    """Where downloads grow; what was cut is gone on with."""
    return settings.cache_dir / "imports"


def _find_wish(connection: Connection, operation: Operation) -> ArmResource | None:
    row = find_resource(connection, operation.resource)
    return row if row is not None and row.document.get(IMPORTING) == operation.id else None


def _read_wish(row: ArmResource) -> VersionBody:
    return read_body(VersionBody, {"properties": row.document.get("properties") or {}})


def _name_of(identifier: str) -> tuple[str, VersionNumber]:
    words = identifier.split("/")  # .../images/I/versions/V
    return words[-3].lower(), VersionNumber.parse(words[-1])


def _mask(error: LabError, source: UrlSource | FileSource) -> None:
    """The query of an address is often a key, and errors are told to whoever may look."""
    query = source.url.partition("?")[2] if isinstance(source, UrlSource) else ""
    if query:
        error.brief = error.brief.replace(query, "...")
        error.detail = error.detail.replace(query, "...")
        error.hint = error.hint.replace(query, "...")


def _without_secrets(document: Mapping[str, Json]) -> dict[str, Json]:
    """What is kept of a wish that has come true."""
    kept = {key: each for key, each in document.items() if key != IMPORTING}
    properties = dict(kept.get("properties") or {})
    storage = dict(properties.get("storageProfile") or {})
    disk = dict(storage.get("osDiskImage") or {})
    source = disk.get("source") or {}
    if "uri" not in source:
        return kept
    disk["source"] = {**source, "uri": mask_uri(source["uri"])}
    storage["osDiskImage"] = disk
    properties["storageProfile"] = storage
    return {**kept, "properties": properties}


def _open_transport(source: UrlSource) -> Transport:
    host = source.url.split("/")[2]
    publisher = Publisher(name=_PUBLISHER, title=host, hosts=(host,), signs="nothing")
    return Transport(publisher, Mirror.from_environment(_PUBLISHER))


def _verify(path: Path, source: FileSource) -> None:
    if source.checksum is None:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, source.checksum.algorithm.value).hexdigest()
    except OSError as error:
        raise HostError(f"cannot read {str(source.path)!r}", detail=str(error)) from error
    if found != source.checksum.digest:
        raise UntrustedError(
            f"file {str(source.path)!r} does not have the checksum {source.checksum}",
            detail=f"it is {source.checksum.algorithm.value}:{found}",
            hint="nothing was imported",
        )
