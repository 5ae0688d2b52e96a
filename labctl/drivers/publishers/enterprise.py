"""What Rocky and AlmaLinux share: folders of images for each minor release, and a vault."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from labctl.drivers.publishers.adapter import by_number
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import dated, ordered
from labctl.drivers.publishers.shapes import find_listing, read_listing
from labctl.model.publisher import Architecture, Covers, PublishedVersion, Signature, Sku

_MINOR = re.compile(r"(\d+)\.(\d+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a publisher keeps what."""

    publisher: str
    root: str  # holds 8/, 9/, 10/
    vault: str  # holds 9.3/, 9.4/
    images: Callable[[str, Architecture], str]  # the folder of images below a release
    pattern: Callable[[Sku, Architecture], re.Pattern[str]]  # groups: minor release, build


def list_majors(index: IndexReader, layout: Layout) -> tuple[str, ...]:
    """The releases that have a folder: 8, 9, 10."""
    names = read_listing(index, f"{layout.root}/")
    majors = {name.removesuffix("/") for name in names if re.fullmatch(r"\d{1,2}/", name)}
    return tuple(sorted(majors, key=by_number))


def list_images(
    index: IndexReader, layout: Layout, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    """All dated images of a release, of the present folder and the vault."""
    present = f"{layout.root}/{layout.images(sku.name, architecture)}"
    folders = {present: read_listing(index, f"{present}/")}
    for name in find_listing(index, f"{layout.vault}/"):
        match = _MINOR.fullmatch(name)
        if match and match[1] == sku.name:
            folder = f"{layout.vault}/{layout.images(name.removesuffix('/'), architecture)}"
            folders[folder] = find_listing(index, f"{folder}/")
    found: dict[str, PublishedVersion] = {}
    pattern = layout.pattern(sku, architecture)
    for folder, names in folders.items():
        for name in names:
            match = pattern.fullmatch(name)
            version = dated(int(sku.name), int(match[1]), match[2]) if match else None
            if match is None or version is None or name in found:
                continue
            found[name] = PublishedVersion(
                version=version,
                build=f"{sku.name}.{match[1]}-{match[2]}",
                url=f"{folder}/{name}",
                architecture=architecture,
                checksum=None,
                sums_urls=(f"{folder}/CHECKSUM", f"{folder}/{name}.CHECKSUM"),
                signature=Signature(
                    covers=Covers.SUMS,
                    url=f"{folder}/CHECKSUM.asc",
                    sums_url=f"{folder}/CHECKSUM",
                ),
            )
    return ordered(layout.publisher, present, found.values())
