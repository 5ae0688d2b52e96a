"""Flatcar: a JSON file of releases for each channel; images are packed by bzip2, and signed."""

import re

from labctl.drivers.publishers.adapter import Adapter, offers_of
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import number, ordered
from labctl.drivers.publishers.shapes import Node
from labctl.model.image import OsType
from labctl.model.publisher import (
    Architecture,
    Compression,
    Covers,
    PublishedVersion,
    Publisher,
    Signature,
    Sku,
)

_CHANNELS = ("stable", "beta", "alpha", "lts")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_IMAGE = "flatcar_production_qemu_image.img.bz2"

_PUBLISHER = Publisher(
    name="flatcar",
    title="Flatcar Container Linux",
    hosts=("www.flatcar.org", *(f"{name}.release.flatcar-linux.net" for name in _CHANNELS)),
    signs="the image, detached .sig",
    note="configured by Ignition; one of the successors of CoreOS Container Linux",
    os_type=OsType.FLATCAR,
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    del index  # the channels do not change
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=channel,
            title=f"Flatcar, channel {channel}",
            definition=f"flatcar-{channel}",
        )
        for channel in _CHANNELS
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    url = f"https://www.flatcar.org/releases-json/releases-{sku.name}.json"
    root = f"https://{sku.name}.release.flatcar-linux.net/{architecture.debian_name}-usr"
    found = []
    for name, release in Node.read(index, url).items():
        match = _VERSION.fullmatch(name)  # "current" is an alias
        if match is None:
            continue
        architectures = [each.text() for each in release.get("architectures").elements()]
        version = number(*(int(part) for part in match.groups()))
        if version is None or architecture.debian_name not in architectures:
            continue
        image = f"{root}/{name}/{_IMAGE}"
        found.append(
            PublishedVersion(
                version=version,
                build=name,
                url=image,
                architecture=architecture,
                checksum=None,
                sums_urls=(f"{image}.DIGESTS",),
                signature=Signature(covers=Covers.IMAGE, url=f"{image}.sig"),
                compression=Compression.BZIP2,
            )
        )
    return ordered(_PUBLISHER.name, url, found)


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(_PUBLISHER.name, {"container-linux": "Container Linux, image for QEMU"}),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
