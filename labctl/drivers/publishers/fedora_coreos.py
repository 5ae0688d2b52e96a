"""Fedora CoreOS: releases.json of a stream, then release.json of a build; images packed by xz."""

import re

from labctl.drivers.publishers.adapter import Adapter, offers_of
from labctl.drivers.publishers.failure import misunderstood
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import number, ordered
from labctl.drivers.publishers.shapes import Node
from labctl.model.image import OsType
from labctl.model.publisher import (
    Algorithm,
    Architecture,
    Checksum,
    Compression,
    Covers,
    PublishedVersion,
    Publisher,
    Signature,
    Sku,
)

_ROOT = "https://builds.coreos.fedoraproject.org"
_STREAMS = ("stable", "testing", "next")
# 44.20260817.3.2: Fedora 44, its packages of that day, stream 3 (stable), second build
_VERSION = re.compile(r"(\d+)\.(\d{8})\.(\d+)\.(\d+)")

_PUBLISHER = Publisher(
    name="fedora-coreos",
    title="Fedora CoreOS",
    hosts=("builds.coreos.fedoraproject.org",),
    signs="the image, detached .sig",
    note="configured by Ignition; one of the successors of CoreOS Container Linux",
    os_type=OsType.FEDORA_COREOS,
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    del index  # the streams do not change
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=stream,
            title=f"Fedora CoreOS, stream {stream}",
            definition=f"fedora-coreos-{stream}",
        )
        for stream in _STREAMS
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    url = f"{_ROOT}/prod/streams/{sku.name}/releases.json"
    newest = _find_newest(index, sku, architecture)
    found = []
    for release in Node.read(index, url).get("releases").elements():
        name = release.get("version").text()
        match = _VERSION.fullmatch(name)
        commits = [each.get("architecture").text() for each in release.get("commits").elements()]
        if match is None or architecture.value not in commits:
            continue
        major, day, _, build = (int(part) for part in match.groups())
        version = number(major, day, build)  # the stream is the SKU
        if version is None:
            continue
        if newest is not None and newest.build == name:
            found.append(newest)
            continue
        folder = f"{_ROOT}/prod/streams/{sku.name}/builds/{name}/{architecture.value}"
        image = f"{folder}/fedora-coreos-{name}-qemu.{architecture.value}.qcow2.xz"
        found.append(
            PublishedVersion(
                version=version,
                build=name,
                url=image,
                architecture=architecture,
                checksum=None,
                sums_urls=(release.get("metadata").text(),),
                signature=Signature(covers=Covers.IMAGE, url=f"{image}.sig"),
                compression=Compression.XZ,
            )
        )
    return ordered(_PUBLISHER.name, url, found)


def _find_newest(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> PublishedVersion | None:
    """What the stream offers now, with its checksum."""
    url = f"{_ROOT}/streams/{sku.name}.json"
    found = Node.read(index, url).get("architectures").find(architecture.value)
    qemu = found.get("artifacts").find("qemu") if found else None
    if qemu is None:
        return None
    release = qemu.get("release").text()
    disk = qemu.get("formats").get("qcow2.xz").get("disk")
    match = _VERSION.fullmatch(release)
    version = number(int(match[1]), int(match[2]), int(match[4])) if match else None
    if version is None:
        raise misunderstood(_PUBLISHER.name, url, f"it names the release {release!r}")
    return PublishedVersion(
        version=version,
        build=release,
        url=disk.get("location").text(),
        architecture=architecture,
        checksum=disk.get(Algorithm.SHA256.value).checksum(Algorithm.SHA256),
        signature=Signature(covers=Covers.IMAGE, url=disk.get("signature").text()),
        compression=Compression.XZ,
    )


def _find_checksum(index: IndexReader, version: PublishedVersion) -> Checksum | None:
    """Read the release.json of a build that is not the stream's newest."""
    for url in version.sums_urls:
        architectures = Node.read(index, url).get("architectures")
        found = architectures.get(version.architecture.value).get("media").find("qemu")
        packed = found.get("artifacts").find("qcow2.xz") if found else None
        if packed is None:
            continue
        disk = packed.get("disk")
        if disk.get("location").text() != version.url:
            raise misunderstood(_PUBLISHER.name, url, f"it does not name {version.url}")
        return disk.get(Algorithm.SHA256.value).checksum(Algorithm.SHA256)
    return None


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(_PUBLISHER.name, {"coreos": "CoreOS, image for QEMU"}),
    list_skus=_list_skus,
    list_versions=_list_versions,
    find_checksum=_find_checksum,
)
