"""`labctl image`: build, import, list, show and delete images."""

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.context import Context, current_context, open_store
from labctl.cli.output import Column, Output, print_document, print_rows
from labctl.errors import InvalidError
from labctl.model.image import ImageDefinition, ImageVersion, OsType, VersionNumber
from labctl.model.spec import DEFAULT_REGION

if TYPE_CHECKING:
    from labctl.controller.images import Imported

_COLUMNS = (
    Column(key="name"),
    Column(key="published"),
    Column(key="latest"),
    Column(key="where", heading="REGIONS"),
    Column(key="virtualSize", heading="VIRTUAL MIB", right=True),
    Column(key="fileSize", heading="FILE MIB", right=True),
    Column(key="buildId"),
    Column(key="createdAt", heading="CREATED"),
)


class SourceFormat(StrEnum):
    """The format of a file to import."""

    QCOW2 = "qcow2"
    RAW = "raw"


VersionOption = Annotated[
    str, typer.Option("--version", metavar="MAJOR.MINOR.PATCH", help="The version to make.")
]
PublishOption = Annotated[
    bool,
    typer.Option(
        "--publish/--no-publish", help="Offer it as `latest` at once; default: do not, yet."
    ),
]
RegionOption = Annotated[
    str, typer.Option(metavar="REGION", help="For which region to tell what `latest` means.")
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME/VERSION", help="For example tiny/1.0.0.")
]


def build(
    recipe_dir: Annotated[
        Path, typer.Argument(metavar="RECIPE_DIR", help="A folder with recipe.yaml and build.")
    ],
    version: VersionOption,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the recipe; repeatable."),
    ] = None,
    greeting: Annotated[
        str, typer.Option(metavar="TEXT", help="A text that the guest shows.")
    ] = "hello from labctl",
    definition: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image definition; default: the recipe's name."),
    ] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option("--copy-to", metavar="FILE", help="Also write the qcow2 file there."),
    ] = None,
    publish: PublishOption = False,
) -> None:
    """Build an image from a recipe and import it. The same build again takes the earlier file."""
    from labctl.controller.clock import now
    from labctl.controller.images import build_and_import

    context = current_context()
    number = VersionNumber.parse(version)
    parameters = _parse_settings(settings or [])
    with closing(open_store(context.settings)) as database:
        built, imported = build_and_import(
            context.settings,
            database,
            recipe_dir,
            version=number,
            parameters=parameters,
            greeting=greeting,
            definition=definition,
            publish=publish,
            now=now(),
            say=lambda line: print(line, file=context.story, flush=True),
        )
    if copy_to is not None:
        _copy(built.path, copy_to)
    _print_import(
        context,
        imported,
        how="unchanged since an earlier build" if built.from_cache else "built",
        fromCache=built.from_cache,
    )


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A disk image.")],
    definition: Annotated[str, typer.Option(metavar="NAME", help="The image definition.")],
    version: VersionOption,
    source_format: Annotated[
        SourceFormat, typer.Option("--format", help="The format of FILE.")
    ] = SourceFormat.QCOW2,
    os_type: Annotated[
        OsType,
        typer.Option(
            "--os-type",
            case_sensitive=False,
            help="How the image is prepared: cloud-init, Ignition or cloudbase-init.",
        ),
    ] = OsType.LINUX,
    description: Annotated[str, typer.Option(help="What the definition is, for people.")] = "",
    publish: PublishOption = False,
) -> None:
    """Verify a disk image and keep a read-only copy of it in the gallery."""
    import re

    from labctl.controller.clock import now
    from labctl.controller.images import import_image
    from labctl.drivers.blobs import Format
    from labctl.model.machine import NAME_PATTERN

    context = current_context()
    number = VersionNumber.parse(version)
    if not re.fullmatch(NAME_PATTERN, definition):
        raise InvalidError(
            f"image definition {definition!r} is not a name",
            hint="use lower-case letters, digits and hyphens, for example debian-12",
        )
    with closing(open_store(context.settings)) as database:
        imported = import_image(
            context.settings,
            database,
            file,
            definition=ImageDefinition(name=definition, os_type=os_type, description=description),
            version=number,
            publish=publish,
            now=now(),
            source_format=Format(source_format.value),
        )
    _print_import(context, imported, how="imported")


def list_(
    definition: Annotated[
        str | None, typer.Argument(metavar="DEFINITION", help="Only versions of this one.")
    ] = None,
    region: RegionOption = DEFAULT_REGION,
) -> None:
    """List the images of the gallery."""
    from labctl.errors import NotFoundError
    from labctl.store.gallery import find_definition, load_definitions, load_versions

    context = current_context()
    with closing(open_store(context.settings)) as database, database.read() as connection:
        if definition is not None and find_definition(connection, definition) is None:
            names = ", ".join(each.name for each in load_definitions(connection))
            raise NotFoundError(
                f"image definition {definition!r} is not in the gallery",
                detail=f"there are: {names}" if names else "the gallery is empty",
                hint="run: labctl image list",
            )
        versions = load_versions(connection, definition)
    rows = [describe_image(image, versions, region=region) for image in versions]
    if context.output is Output.TABLE:
        for row in rows:
            row.update({key: _megabytes(row[key]) for key in ("fileSize", "virtualSize")})
            row["where"] = ", ".join(each["name"] for each in row["regions"]) or "all"
    print_rows(
        rows,
        _COLUMNS,
        context.output,
        empty="no images; run: labctl image build images/tiny --version 1.0.0 --publish",
    )


def show(name: NameArgument, region: RegionOption = DEFAULT_REGION) -> None:
    """Show one image and who uses it; `NAME/latest` shows what latest means now."""
    from labctl.controller.clock import now
    from labctl.store.gallery import find_users, load_versions, resolve

    context = current_context()
    definition, _, version = name.partition("/")
    with closing(open_store(context.settings)) as database, database.read() as connection:
        image = resolve(connection, definition, version or "latest", region=region, now=now())
        row = describe_image(image, load_versions(connection, definition), region=region)
        users = find_users(connection, image.digest)
    path = context.settings.blobs_dir / f"{image.digest}.qcow2"
    print_document({**row, "path": path, "usedBy": list(users)}, context.output)


def delete(name: NameArgument) -> None:
    """Delete an image that nothing uses, and its file unless another version has the same."""
    from labctl.controller.clock import now
    from labctl.controller.images import delete_image
    from labctl.store.gallery import parse_name

    context = current_context()
    definition, version = parse_name(name)
    with closing(open_store(context.settings)) as database:
        file_deleted = delete_image(context.settings, database, definition, version, now=now())
    if context.output is not Output.TABLE:
        print_document({"name": name, "deleted": True, "fileDeleted": file_deleted}, context.output)
        return
    print(f"{name} deleted" + ("" if file_deleted else "; another version keeps its file"))


def _parse_settings(words: list[str]) -> dict[str, str]:
    parameters = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidError(
                f"--set {word!r} is not NAME=VALUE", hint="for example: --set fault=unhealthy"
            )
        parameters[name] = value
    return parameters


def _copy(source: Path, target: Path) -> None:
    import shutil

    part = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(source, part)
        part.rename(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidError(f"cannot write {str(target)!r}", detail=str(error)) from error


def _print_import(context: Context, imported: "Imported", *, how: str, **more: object) -> None:
    image = imported.image
    if context.output is not Output.TABLE:
        row = {**describe_image(image), "isNew": imported.is_new, **more}
        print_document(row, context.output)
        return
    if not imported.is_new:
        print(f"{image.name}: {how}; the gallery has it already, nothing was changed")
    else:
        size = _megabytes(image.file_size)
        build_id = f", build {image.build_id}" if image.build_id else ""
        print(f"{image.name}: {how}{build_id}, {size} MiB, sha256 {image.digest[:12]}")
    if image.published_at is None or image.excluded_from_latest:
        print(f"not offered as latest yet; run: labctl image publish {image.name}")


def print_change(context: Context, image: ImageVersion, line: str) -> None:
    """Print what a command changed: `line`, or the image itself with -o json."""
    if context.output is Output.TABLE:
        print(line)
    else:
        print_document(describe_image(image), context.output)


def describe_image(
    image: ImageVersion, versions: tuple[ImageVersion, ...] = (), *, region: str = DEFAULT_REGION
) -> dict[str, Any]:
    """The image as documents show it; with `versions`, also whether it is the latest of them."""
    from labctl.controller.clock import now
    from labctl.model.image import find_latest

    siblings = tuple(each for each in versions if each.definition == image.definition)
    row: dict[str, Any] = {
        "name": image.name,
        "definition": image.definition,
        "version": image.version,
        "published": image.published_at is not None,
        "excludedFromLatest": image.excluded_from_latest,
        "endOfLife": image.end_of_life,
        "regions": [
            {
                "name": replica.region,
                "replicatedAt": replica.replicated_at,
                "excludedFromLatest": replica.excluded_from_latest,
            }
            for replica in image.replicas
        ],
        "digest": image.digest,
        "fileSize": image.file_size,
        "virtualSize": image.virtual_size,
        "createdAt": image.created_at,
        "publishedAt": image.published_at,
        "buildId": image.build_id,
        "source": image.source,
    }
    if siblings:
        row["latest"] = find_latest(siblings, region=region, now=now()) == image
    return row


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f}"
