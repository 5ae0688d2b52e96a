"""Images in and out of the gallery: the file first, then the row; deleted in the other order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from labctl.drivers.blobs import (
    Format,
    admitting,
    delete_abandoned,
    ensure_deleted,
    find_digests,
    locked,
)
from labctl.drivers.recipe import BuiltImage, build_image
from labctl.model.image import ImageDefinition, ImageVersion, OsType, VersionNumber
from labctl.settings import Settings
from labctl.store import gallery, offers
from labctl.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """How an import ended."""

    image: ImageVersion
    is_new: bool  # False: the gallery had this file under this version
    file_is_new: bool  # False: the gallery had this file, perhaps under another version


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection of garbage deleted."""

    digests: tuple[str, ...]  # files that no version names and nobody uses
    parts: tuple[Path, ...]  # rests of imports that were killed


def import_image(
    settings: Settings,
    database: Database,
    source: Path,
    *,
    definition: ImageDefinition,
    version: VersionNumber,
    publish: bool,
    now: datetime,
    source_format: Format = Format.QCOW2,
    build_id: str = "",
    origin: str = "",
    may_link: bool = False,
) -> Imported:
    """Verify a file and add it to the gallery; `origin` tells people where it came from.

    Importing the same file under the same version again changes nothing. Raises RefusedError when
    the version has another file, InvalidError for an image that cannot be used, NotFoundError for a
    file that is not there.
    """
    with admitting(settings, source, source_format=source_format, may_link=may_link) as blob:
        image = ImageVersion(
            definition=definition.name,
            version=version,
            digest=blob.digest,
            file_size=blob.file_size,
            virtual_size=blob.virtual_size,
            created_at=now,
            published_at=None,
            build_id=build_id,
            source=origin or str(source.absolute()),
        )
        try:
            with database.write() as connection:
                gallery.ensure_definition(connection, definition, now)
                is_new = gallery.add_version(connection, image)
                if publish:
                    offers.publish_version(connection, definition.name, version, now)
                kept = gallery.get_version(connection, definition.name, version, now=now)
        except BaseException:
            if blob.is_new:
                ensure_deleted(settings, blob.digest)
            raise
        return Imported(image=kept, is_new=is_new, file_is_new=blob.is_new)


def build_and_import(
    settings: Settings,
    database: Database,
    recipe_dir: Path,
    *,
    version: VersionNumber,
    parameters: Mapping[str, str],
    greeting: str,
    definition: str | None,
    publish: bool,
    now: datetime,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[BuiltImage, Imported]:
    """Build a recipe, or take its earlier build, and import that under the recipe's name."""
    built = build_image(
        recipe_dir,
        version=version,
        parameters=parameters,
        greeting=greeting,
        settings=settings,
        say=say,
    )
    imported = import_image(
        settings,
        database,
        built.path,
        definition=ImageDefinition(
            name=definition or built.recipe.name,
            os_type=OsType(built.recipe.os_type),
            description=built.recipe.description,
        ),
        version=version,
        publish=publish,
        now=now,
        build_id=built.build_id,
        origin=f"built from {recipe_dir.absolute()}",
        may_link=True,
    )
    return built, imported


def delete_image(
    settings: Settings,
    database: Database,
    definition: str,
    version: VersionNumber,
    *,
    now: datetime,
) -> bool:
    """Delete a version, and its file when nothing else needs it. True: the file went, too.

    Raises NotFoundError, and RefusedError while the file is in use. A crash in between leaves a
    file without a row, which `collect_garbage` finds; never a row without a file.
    """
    with database.write() as connection:
        image = gallery.remove_version(connection, definition, version, now=now)
    return image.digest in collect_garbage(settings, database).digests


def ensure_file_forgotten(settings: Settings, database: Database, digest: str) -> bool:
    """Delete a file, once its row is gone, unless something needs it. False: it stays."""
    return _delete_unneeded(settings, database, digest)


def collect_garbage(settings: Settings, database: Database) -> Collected:
    """Delete the files that no version names and nothing uses, and rests of killed imports."""
    return Collected(
        digests=tuple(
            digest
            for digest in find_digests(settings)
            if _delete_unneeded(settings, database, digest)
        ),
        parts=delete_abandoned(settings),
    )


def _delete_unneeded(settings: Settings, database: Database, digest: str) -> bool:
    # An import of the same bytes holds the lock until its row is there.
    with locked(settings, digest):
        with database.read() as connection:
            if gallery.is_needed(connection, digest):
                return False
        return ensure_deleted(settings, digest)
