"""CentOS: Stream, and the images of CentOS 7 that stay where they were published."""

import re

from labctl.drivers.publishers.adapter import Adapter, by_number, offers_of
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import dated, number, ordered
from labctl.drivers.publishers.shapes import read_listing
from labctl.model.publisher import (
    Architecture,
    Covers,
    PublishedVersion,
    Publisher,
    Signature,
    Sku,
)

_ROOT = "https://cloud.centos.org/centos"
_SEVEN = f"{_ROOT}/7/images"
_STREAM = re.compile(r"(\d+)-stream/")
# CentOS-7-x86_64-GenericCloud-1804_02.qcow2: the packages of April 2018, second build
_SEVEN_IMAGE = re.compile(r"CentOS-7-x86_64-GenericCloud-(\d{2})(\d{2})(?:_(\d{1,2}))?\.qcow2")
# The month of each point release; images of later months belong to it until the next one.
_POINTS = {1406: 0, 1503: 1, 1511: 2, 1611: 3, 1708: 4, 1804: 5, 1810: 6, 1908: 7, 2003: 8, 2009: 9}

_PUBLISHER = Publisher(
    name="centos",
    title="CentOS",
    hosts=("cloud.centos.org", "vault.centos.org"),
    signs="CentOS 7: sha256sum.txt.asc, clearsigned; Stream: nothing found",
    note="CentOS 7 ended in June 2024; its packages are in vault.centos.org",
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    if offer == "stream":
        majors = {
            match[1] for name in read_listing(index, f"{_ROOT}/") if (match := _STREAM.match(name))
        }
        return tuple(
            Sku(
                publisher=_PUBLISHER.name,
                offer=offer,
                name=major,
                title=f"CentOS Stream {major}",
                definition=f"centos-stream-{major}",
            )
            for major in sorted(majors, key=by_number)
        )
    points = {_point_of(match) for match, _ in _seven_images(index)}
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=f"7.{point}",
            title=f"CentOS 7.{point}",
            definition=f"centos-7-{point}",
        )
        for point in sorted(points)
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    if sku.offer == "stream":
        return _list_stream(index, sku, architecture)
    if architecture is not Architecture.X86_64:
        return ()
    found = []
    for match, name in _seven_images(index):
        point = _point_of(match)
        if f"7.{point}" != sku.name:
            continue
        month, build = int(match[1] + match[2]), int(match[3] or 0)
        # Month and build on that month, two digits each: 1804_02 is 7.5.180402.
        version = number(7, point, month * 100 + build)
        if version is None:
            continue
        sums = f"{_SEVEN}/sha256sum.txt"
        found.append(
            PublishedVersion(
                version=version,
                build=name.removesuffix(".qcow2").rsplit("-", 1)[-1],
                url=f"{_SEVEN}/{name}",
                architecture=architecture,
                checksum=None,
                sums_urls=(sums,),
                signature=Signature(covers=Covers.SUMS, url=f"{sums}.asc", sums_url=sums),
            )
        )
    return ordered(_PUBLISHER.name, _SEVEN, found)


def _list_stream(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    folder = f"{_ROOT}/{sku.name}-stream/{architecture.value}/images"
    pattern = re.compile(
        rf"CentOS-Stream-GenericCloud-(?:{architecture.value}-)?{sku.name}"
        rf"-(\d{{8}}(?:\.\d+)?)\.{architecture.value}\.qcow2"
    )
    found = {}
    # Sorted: where a build has two names, the one with the architecture in it is the newer habit.
    for name in sorted(read_listing(index, f"{folder}/")):
        match = pattern.fullmatch(name)
        version = dated(int(sku.name), 0, match[1]) if match else None
        if match is None or version is None:
            continue
        found[version] = PublishedVersion(
            version=version,
            build=match[1],
            url=f"{folder}/{name}",
            architecture=architecture,
            checksum=None,
            sums_urls=(f"{folder}/{name}.SHA256SUM", f"{folder}/CHECKSUM"),
        )
    return ordered(_PUBLISHER.name, folder, found.values())


def _seven_images(index: IndexReader) -> list[tuple[re.Match[str], str]]:
    names = read_listing(index, f"{_SEVEN}/")
    return [(match, name) for name in names if (match := _SEVEN_IMAGE.fullmatch(name))]


def _point_of(match: re.Match[str]) -> int:
    month = int(match[1] + match[2])
    return max((point for first, point in _POINTS.items() if first <= month), default=0)


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(
        _PUBLISHER.name, {"stream": "CentOS Stream", "linux": "CentOS 7, no longer maintained"}
    ),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
