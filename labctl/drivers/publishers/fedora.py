"""Fedora: releases.json of the project, a clearsigned CHECKSUM beside the images."""

import re
from urllib.parse import urlsplit

from labctl.drivers.publishers.adapter import Adapter, by_number, offers_of
from labctl.drivers.publishers.failure import misunderstood
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import number, ordered
from labctl.drivers.publishers.shapes import Node
from labctl.model.publisher import (
    Algorithm,
    Architecture,
    Covers,
    PublishedVersion,
    Publisher,
    Signature,
    Sku,
)

_INDEX = "https://fedoraproject.org/releases.json"
_RELEASE = re.compile(r"(\d{2,3})( Beta)?")
# Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2; before: -Generic.x86_64-40-1.14, -Base-39-1.5
_IMAGE = re.compile(
    r"Fedora-Cloud-Base(?:-Generic)?(?:\.(?:x86_64|aarch64))?"
    r"-(\d{2,3})(_Beta)?-(\d+)\.(\d+)(?:\.(?:x86_64|aarch64))?\.qcow2"
)

_PUBLISHER = Publisher(
    name="fedora",
    title="Fedora Cloud",
    hosts=("fedoraproject.org", "download.fedoraproject.org", "dl.fedoraproject.org"),
    signs="CHECKSUM, clearsigned",
    note="lists the present releases; each has one image, updates come by dnf",
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    found = {}
    for entry in _read_images(index):
        match = _RELEASE.fullmatch(entry.get("version").text())
        if match:
            name = f"{match[1]}{'-beta' if match[2] else ''}"
            found[name] = Sku(
                publisher=_PUBLISHER.name,
                offer=offer,
                name=name,
                title=f"Fedora {match[0]}",
                definition=f"fedora-{name}",
            )
    return tuple(found[name] for name in sorted(found, key=lambda name: (by_number(name), name)))


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    found = []
    for entry in _read_images(index):
        if entry.get("arch").text() != architecture.value:
            continue
        url = entry.get("link").text()
        folder, _, name = url.rpartition("/")
        match = _IMAGE.fullmatch(name)
        if match is None:
            continue  # the same disk for one cloud: UEFI-UKI, Azure, OpenStack
        release, beta, major, minor = match.groups()
        if f"{release}{'-beta' if beta else ''}" != sku.name:
            continue
        if ".." in urlsplit(url).path or "%" in url:
            raise misunderstood(_PUBLISHER.name, _INDEX, f"it names the address {url!r}")
        version = number(int(release), int(major), int(minor))
        if version is None:
            continue
        label = f"{release}{beta or ''}-{major}.{minor}"
        checksum, size = entry.find(Algorithm.SHA256.value), entry.find("size")
        sums = f"{folder}/Fedora-Cloud-{label}-{architecture.value}-CHECKSUM"
        found.append(
            PublishedVersion(
                version=version,
                build=label,
                url=url,
                architecture=architecture,
                checksum=checksum.checksum(Algorithm.SHA256) if checksum else None,
                sums_urls=(sums,),
                signature=Signature(covers=Covers.SUMS, url=sums),
                size=size.size() if size else None,
            )
        )
    return ordered(_PUBLISHER.name, _INDEX, found)


def _read_images(index: IndexReader) -> list[Node]:
    entries = Node.read(index, _INDEX).elements()
    return [
        entry
        for entry in entries
        if (subvariant := entry.find("subvariant")) and subvariant.text() == "Cloud_Base"
    ]


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(_PUBLISHER.name, {"cloud": "Cloud Base, generic"}),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
