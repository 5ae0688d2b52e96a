"""Debian: folders named by day and build, SHA512SUMS in each, no signature."""

import re

from labctl.drivers.publishers.adapter import Adapter, offers_of
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import number, ordered
from labctl.drivers.publishers.shapes import read_listing
from labctl.model.publisher import Architecture, PublishedVersion, Publisher, Sku

_ROOT = "https://cloud.debian.org/images/cloud"
_RELEASES = {
    "stretch": 9,
    "buster": 10,
    "bullseye": 11,
    "bookworm": 12,
    "trixie": 13,
    "forky": 14,
    "duke": 15,
}
_BUILD = re.compile(r"(\d{8})-(\d{1,6})/")
_DAILY = "-daily"

_PUBLISHER = Publisher(
    name="debian",
    title="Debian",
    hosts=("cloud.debian.org",),
    signs="nothing; SHA512SUMS come over TLS from cloud.debian.org",
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    names = read_listing(index, f"{_ROOT}/")
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=f"{release}{suffix}",
            title=f"Debian {release} ({codename}){', daily builds' if suffix else ''}",
            definition=f"debian-{release}-{offer}{suffix}",
        )
        for codename, release in _RELEASES.items()
        if f"{codename}/" in names
        for suffix in ("", _DAILY)
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    release = int(sku.name.removesuffix(_DAILY))
    codename = next(name for name, known in _RELEASES.items() if known == release)
    root = f"{_ROOT}/{codename}{'/daily' if sku.name.endswith(_DAILY) else ''}"
    found = []
    for folder in read_listing(index, f"{root}/"):
        match = _BUILD.fullmatch(folder)
        # The count goes on over all days, so day and count are two numbers: 12.20260821.2577.
        version = number(release, int(match[1]), int(match[2])) if match else None
        if version is None:
            continue
        build = folder.removesuffix("/")
        name = f"debian-{release}-{sku.offer}-{architecture.debian_name}{_infix(sku)}-{build}.qcow2"
        found.append(
            PublishedVersion(
                version=version,
                build=build,
                url=f"{root}/{build}/{name}",
                architecture=architecture,
                checksum=None,
                sums_urls=(f"{root}/{build}/SHA512SUMS",),
            )
        )
    return ordered(_PUBLISHER.name, root, found)


def _infix(sku: Sku) -> str:
    return _DAILY if sku.name.endswith(_DAILY) else ""


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(
        _PUBLISHER.name,
        {
            "genericcloud": "cloud-init, kernel for virtual machines only",
            "generic": "cloud-init, kernel with all drivers",
            "nocloud": "without cloud-init, for tests",
        },
    ),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
