"""`labctl image publishers|offers|skus|versions|pull`: images of those who publish them."""

import re
import sys
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.context import Context, current_context, open_store
from labctl.cli.output import Column, Output, format_moment, print_document, print_rows
from labctl.errors import InvalidError
from labctl.model.image import LATEST
from labctl.model.publisher import Architecture, PublishedVersion

if TYPE_CHECKING:
    from labctl.controller.provenance import Source
    from labctl.controller.published import Pulled

PublisherArgument = Annotated[
    str, typer.Argument(metavar="PUBLISHER", help="For example ubuntu; see `image publishers`.")
]
OfferArgument = Annotated[
    str, typer.Argument(metavar="OFFER", help="For example server; see `image offers`.")
]
SkuArgument = Annotated[
    str, typer.Argument(metavar="SKU", help="For example 24.04; see `image skus`.")
]
ArchitectureOption = Annotated[
    Architecture, typer.Option("--architecture", help="The processor of the image.")
]
RefreshOption = Annotated[
    bool,
    typer.Option("--refresh", help="Ask the publisher even if the index is younger than 10 min."),
]

_VERSION_COLUMNS = (
    Column(key="name"),
    Column(key="build"),
    Column(key="size", heading="MIB", right=True),
    Column(key="checksum"),
    Column(key="url", heading="URL"),
)


class _Key(StrEnum):
    """What versions can be ordered by."""

    NAME = "name"
    BUILD = "build"
    SIZE = "size"


def publishers() -> None:
    """List the publishers whose images labctl can pull."""
    from labctl.drivers.publishers.addresses import Mirror, variable_of
    from labctl.drivers.publishers.registry import ADAPTERS
    from labctl.drivers.publishers.signature import find_keyring, keyrings_dir

    context = current_context()
    rows = []
    for adapter in ADAPTERS:
        publisher = adapter.publisher
        mirror = Mirror.from_environment(publisher.name)
        keyring = find_keyring(keyrings_dir(context.settings), publisher.name)
        rows.append(
            {
                "name": publisher.name,
                "title": publisher.title,
                "offers": [offer.name for offer in adapter.offers],
                "signs": publisher.signs,
                "keyring": None if keyring is None else list(keyring.files),
                "hosts": list(publisher.hosts),
                "mirror": None if mirror is None else mirror.url,
                "mirrorVariable": variable_of(publisher.name),
                "note": publisher.note,
            }
        )
    columns = ("name", "title", "offers", "signs", "keyring", "mirror")
    print_rows(rows, columns, context.output)


def offers(publisher: PublisherArgument) -> None:
    """List what a publisher offers."""
    from labctl.drivers.publishers.registry import get_adapter

    context = current_context()
    rows = [{"name": each.name, "title": each.title} for each in get_adapter(publisher).offers]
    print_rows(rows, ("name", "title"), context.output)


def skus(
    publisher: Annotated[
        str | None, typer.Argument(metavar="PUBLISHER", help="For example ubuntu.")
    ] = None,
    offer: Annotated[
        str | None, typer.Argument(metavar="OFFER", help="For example server.")
    ] = None,
    page_table: Annotated[
        bool,
        typer.Option(
            "--page-table", help="The page's table of supported SKUs, and what labctl has for each."
        ),
    ] = False,
    refresh: RefreshOption = False,
) -> None:
    """List the SKUs of an offer: what gets new versions."""
    context = current_context()
    if page_table:
        from labctl.cli.page_table import PAGE_ROWS

        columns = ("publisher", "offer", "sku", "labctl", "verified")
        rows = [{key: getattr(row, key) for key in columns} for row in PAGE_ROWS]
        print_rows(rows, columns, context.output)
        return
    if publisher is None or offer is None:
        raise InvalidError(
            "skus needs a publisher and an offer",
            hint="for example: labctl image skus ubuntu server",
        )
    from labctl.controller.clock import now
    from labctl.controller.published import opened

    with opened(context.settings, publisher, now=now(), refresh=refresh) as source:
        found = source.adapter.list_skus(source.index, source.adapter.get_offer(offer).name)
        tell_stale(source)
    rows = [{"name": sku.name, "title": sku.title, "definition": sku.definition} for sku in found]
    print_rows(rows, ("name", "title", "definition"), context.output)


def versions(
    publisher: PublisherArgument,
    offer: OfferArgument,
    sku: SkuArgument,
    architecture: ArchitectureOption = Architecture.X86_64,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="Only the first N.")
    ] = None,
    order_by: Annotated[
        str,
        typer.Option(
            "--orderby", metavar="'KEY [asc|desc]'", help="KEY is name, build or size; by number."
        ),
    ] = "name asc",
    refresh: RefreshOption = False,
) -> None:
    """List the versions of a SKU, each with its dated address and checksum."""
    from labctl.controller.clock import now
    from labctl.controller.published import list_versions, opened

    context = current_context()
    key, reverse = _parse_order(order_by)
    with opened(context.settings, publisher, now=now(), refresh=refresh) as source:
        _, found = list_versions(source, offer, sku, architecture)
        tell_stale(source)
        stale = source.index.stale
    shown = _order(found, key, reverse=reverse)[:top]
    rows = [
        {**_row(each), "indexFetchedAt": stale[0].fetched_at if stale else None} for each in shown
    ]
    if context.output is Output.TABLE:
        for row, version in zip(rows, shown, strict=True):
            row["size"] = None if version.size is None else f"{version.size / 2**20:.1f}"
            row["checksum"] = _short(version)
    print_rows(rows, _VERSION_COLUMNS, context.output, empty="no versions for this architecture")


def pull(
    publisher: PublisherArgument,
    offer: OfferArgument,
    sku: SkuArgument,
    version: Annotated[
        str,
        typer.Option("--version", metavar="VERSION", help="`latest`, a version or a build's name."),
    ] = LATEST,
    definition: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image definition; default: as `image skus` tells."),
    ] = None,
    architecture: ArchitectureOption = Architecture.X86_64,
    require_signature: Annotated[
        bool,
        typer.Option("--require-signature", help="Refuse what cannot be verified with a key ring."),
    ] = False,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish/--no-publish", help="Offer it as `latest` at once; default: do not, yet."
        ),
    ] = False,
    refresh: RefreshOption = False,
) -> None:
    """Download an image, verify it and import it into the gallery. Run again, it goes on."""
    from labctl.cli.download_progress import download_progress
    from labctl.controller import published
    from labctl.controller.clock import now

    context = current_context()
    require_name(definition)
    with published.opened(context.settings, publisher, now=now(), refresh=refresh) as source:
        found, all_versions = published.list_versions(source, offer, sku, architecture)
        tell_stale(source)
        chosen = published.choose(all_versions, version, f"{publisher} {offer} {sku}")
        name = definition or published.propose_definition(found, architecture)
        subject = f"{name}/{chosen.version}"
        with (
            closing(open_store(context.settings)) as database,
            download_progress(context, subject) as progress,
        ):
            pulled = published.pull(
                source,
                database,
                chosen,
                definition=name,
                description=found.title,
                publish=publish,
                require_signature=require_signature,
                now=now(),
                say=progress.say,
                show=progress.show,
                sku=found,
            )
    _print_pulled(context, pulled)


def _print_pulled(context: Context, pulled: "Pulled") -> None:
    image = pulled.imported.image
    if context.output is not Output.TABLE:
        row = {
            **_row(pulled.published),
            "name": image.name,
            "isNew": pulled.imported.is_new,
            "published": image.published_at is not None,
            "digest": image.digest,
            "source": pulled.origin,
        }
        print_document(row, context.output)
        return
    if pulled.imported.is_new:
        size = f"{image.file_size / 2**20:.1f}"
        print(f"{image.name}: pulled, {size} MiB, sha256 {image.digest[:12]}")
    else:
        print(f"{image.name}: the gallery has it already, nothing was downloaded")
    if image.published_at is None:
        print(f"not offered as latest yet; run: labctl image publish {image.name}")


def tell_stale(source: "Source") -> None:
    """Say on stderr that the publisher is down and how old the list is."""
    for stale in source.index.stale:
        print(f"labctl: {stale.why}", file=sys.stderr)
        when = format_moment(stale.fetched_at)
        print(f"  the index of {when} is used: {stale.url}", file=sys.stderr)


def _row(version: PublishedVersion) -> dict[str, Any]:
    signature = version.signature
    return {
        "name": version.version,
        "build": version.build,
        "architecture": version.architecture,
        "url": version.url,
        "size": version.size,
        "compression": version.compression,
        "checksum": None if version.checksum is None else str(version.checksum),
        "checksumIn": list(version.sums_urls),
        "signature": None if signature is None else signature.url,
    }


def _short(version: PublishedVersion) -> str:
    if version.checksum is not None:
        return f"{version.checksum.algorithm.value}:{version.checksum.digest[:12]}"
    if not version.sums_urls:
        return "none"
    return f"in {version.sums_urls[0].rsplit('/', 1)[-1].removeprefix(version.file_name + '.')}"


def _parse_order(text: str) -> tuple[_Key, bool]:
    words = text.split()
    direction = words[1] if len(words) == 2 else "asc"
    keys = [key.value for key in _Key]
    if len(words) not in {1, 2} or words[0] not in keys or direction not in {"asc", "desc"}:
        raise InvalidError(
            f"--orderby {text!r} is not KEY or 'KEY desc'",
            hint=f"keys: {', '.join(keys)}; for example --orderby 'name desc'",
        )
    return _Key(words[0]), direction == "desc"


def _order(
    versions: Sequence[PublishedVersion], key: _Key, *, reverse: bool
) -> list[PublishedVersion]:
    if key is _Key.NAME:
        return sorted(versions, key=lambda each: each.version, reverse=reverse)
    if key is _Key.SIZE:
        return sorted(versions, key=lambda each: each.size or 0, reverse=reverse)
    return sorted(
        versions,
        key=lambda each: tuple(int(part) for part in re.findall(r"\d+", each.build)),
        reverse=reverse,
    )


def require_name(definition: str | None) -> None:
    """Raises InvalidError for what cannot be the name of an image definition."""
    from labctl.model.machine import NAME_PATTERN

    if definition is not None and not re.fullmatch(NAME_PATTERN, definition):
        raise InvalidError(
            f"image definition {definition!r} is not a name",
            hint="use lower-case letters, digits and hyphens, for example debian-12",
        )
