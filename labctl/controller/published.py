"""Publishers' images: lists of them, and the way of one into the gallery, verified."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from labctl.controller.images import Imported, import_image
from labctl.controller.provenance import (
    Source,
    describe_provenance,
    verify_before,
    verify_image,
)
from labctl.drivers.publishers.addresses import Mirror
from labctl.drivers.publishers.download import downloading, ensure_forgotten
from labctl.drivers.publishers.failure import UntrustedError
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.registry import get_adapter
from labctl.drivers.publishers.transport import Transport
from labctl.drivers.publishers.unpack import unpacking
from labctl.errors import InvalidError, NotFoundError, RefusedError
from labctl.model.image import LATEST, ImageDefinition, ImageVersion
from labctl.model.publisher import Architecture, Checksum, PublishedVersion, Sku, find_newest
from labctl.settings import Settings
from labctl.store import gallery
from labctl.store.database import Database
from labctl.store.origins import PulledSku, save_pulled_sku

Say = Callable[[str], None]
Show = Callable[[int, int | None], None]
_SIGNED = "signed by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """How a pull ended."""

    imported: Imported
    published: PublishedVersion
    origin: str  # the dated address, the checksum, who signed


@contextmanager
def opened(
    settings: Settings, publisher: str, *, now: datetime, refresh: bool = False
) -> Iterator[Source]:
    """Open a publisher, or the mirror set for it. Raises NotFoundError, InvalidError."""
    adapter = get_adapter(publisher)
    transport = Transport(adapter.publisher, Mirror.from_environment(publisher))
    folder = settings.cache_dir / "publishers" / publisher
    try:
        yield Source(
            settings=settings,
            adapter=adapter,
            transport=transport,
            index=IndexReader(transport, folder, now=now, refresh=refresh),
        )
    finally:
        transport.close()


def list_versions(
    source: Source, offer: str, sku: str, architecture: Architecture
) -> tuple[Sku, tuple[PublishedVersion, ...]]:
    """The versions of a SKU, oldest first. Raises NotFoundError, PublisherError."""
    found = source.adapter.get_sku(source.index, offer, sku)
    return found, source.adapter.list_versions(source.index, found, architecture)


def propose_definition(sku: Sku, architecture: Architecture) -> str:
    """The image definition for what comes of this SKU."""
    suffix = "" if architecture is Architecture.X86_64 else f"-{architecture.value}"
    return f"{sku.definition}{suffix}"


def choose(versions: tuple[PublishedVersion, ...], wanted: str, name: str) -> PublishedVersion:
    """The version of this number or build name, or the newest. Raises NotFoundError."""
    if wanted == LATEST:
        newest = find_newest(versions)
        if newest is None:
            raise NotFoundError(f"{name} has no versions")
        return newest
    for version in versions:
        if wanted in {str(version.version), version.build}:
            return version
    raise NotFoundError(
        f"{name} has no version {wanted!r}",
        detail=f"the newest: {', '.join(str(each.version) for each in versions[:-6:-1]) or 'none'}",
        hint="name a version or a build that `labctl image versions` lists",
    )


def pull(
    source: Source,
    database: Database,
    published: PublishedVersion,
    *,
    definition: str,
    description: str,
    publish: bool,
    require_signature: bool,
    now: datetime,
    say: Say,
    show: Show,
    sku: Sku | None = None,
) -> Pulled:
    """Download, verify, unpack and import one version; what is in the gallery is not fetched again.

    Raises PublisherError, UntrustedError, RefusedError, InvalidError. Whatever fails, the gallery
    stays as it was. What was downloaded before a cut or a kill is used by the next pull. `sku` is
    remembered: clients of the API find the definition under the publisher's names, too.
    """
    folder = source.settings.cache_dir / "publishers" / "downloads"
    with database.read() as connection:
        kept = gallery.find_version(connection, definition, published.version)
    if kept is not None:
        _require_same(kept, published, require_signature=require_signature)
        ensure_forgotten(folder, published.url)  # the rest of a pull that was killed at its end
        imported = _import_again(source, database, kept, publish=publish, now=now)
        _remember(database, definition, sku, published.architecture)
        return Pulled(imported=imported, published=published, origin=kept.source)

    checksum = _get_checksum(source, published)
    found = verify_before(source, published, checksum, required=require_signature)
    say(f"resolved to {published.url} ({checksum.algorithm.value} {checksum.digest[:16]}...)")
    with downloading(
        source.transport,
        published.url,
        folder,
        checksum=checksum,
        size=published.size,
        say=say,
        show=show,
    ) as path:
        say(f"the {checksum.algorithm.value} checksum is right")
        found = found or verify_image(source, published, path)
        say(describe_provenance(source, found))
        origin = f"{published.url} {checksum}"
        if found.fingerprint:
            origin += f" {_SIGNED} {found.fingerprint}"
        with unpacking(path, published.compression, name=published.file_name, show=show) as image:
            imported = _import(
                source,
                database,
                image,
                published,
                definition=ImageDefinition(
                    name=definition,
                    os_type=source.adapter.publisher.os_type,
                    description=description,
                ),
                publish=publish,
                now=now,
                origin=origin,
            )
    _remember(database, definition, sku, published.architecture)
    return Pulled(imported=imported, published=published, origin=origin)


def _remember(
    database: Database, definition: str, sku: Sku | None, architecture: Architecture
) -> None:
    if sku is None:
        return
    pulled = PulledSku(
        definition=definition,
        publisher=sku.publisher,
        offer=sku.offer,
        sku=sku.name,
        architecture=architecture,
    )
    with database.write() as connection:
        save_pulled_sku(connection, pulled)


def _get_checksum(source: Source, published: PublishedVersion) -> Checksum:
    checksum = published.checksum or source.adapter.find_checksum(source.index, published)
    if checksum is None:
        raise UntrustedError(
            f"publisher {source.name!r} tells no checksum of {published.file_name!r}",
            detail=f"looked in: {', '.join(published.sums_urls) or 'its index'}",
            hint="choose another version; nothing is imported without a checksum",
        )
    return checksum


def _import_again(
    source: Source, database: Database, kept: ImageVersion, *, publish: bool, now: datetime
) -> Imported:
    """Import the gallery's own file once more: that verifies it, and publishes it if wanted."""
    return import_image(
        source.settings,
        database,
        source.settings.blobs_dir / f"{kept.digest}.qcow2",
        definition=ImageDefinition(name=kept.definition, os_type=source.adapter.publisher.os_type),
        version=kept.version,
        publish=publish,
        now=now,
        may_link=True,
    )


def _import(
    source: Source,
    database: Database,
    image: Path,
    published: PublishedVersion,
    *,
    definition: ImageDefinition,
    publish: bool,
    now: datetime,
    origin: str,
) -> Imported:
    try:
        return import_image(
            source.settings,
            database,
            image,
            definition=definition,
            version=published.version,
            publish=publish,
            now=now,
            build_id=published.build,
            origin=origin,
        )
    except InvalidError as error:
        # The checksum was right, so the publisher's file is what it is.
        brief = error.brief.replace(repr(str(image)), repr(published.file_name))
        raise InvalidError(
            brief, detail=error.detail, hint="nothing was imported; choose another version"
        ) from error


def _require_same(
    kept: ImageVersion, published: PublishedVersion, *, require_signature: bool
) -> None:
    """Is what the gallery has under this number what the publisher has under it?"""
    url, _, rest = kept.source.partition(" ")
    known = rest.split(" ")[0]
    changed = published.checksum is not None and known != str(published.checksum)
    if url != published.url or changed:
        raise RefusedError(
            f"image {kept.name} exists and came from elsewhere",
            detail=f"gallery: {kept.source}\npublisher: {published.url} {published.checksum or ''}",
            hint="choose another definition: --definition NAME",
        )
    if require_signature and _SIGNED not in rest:
        raise RefusedError(
            f"image {kept.name} was pulled without a signature",
            hint=f"run: labctl image delete {kept.name}, then pull it again",
        )
