"""Rocky Linux: folder listings, a CHECKSUM for the folder and one for each image."""

import re

from labctl.drivers.publishers.adapter import Adapter, offers_of
from labctl.drivers.publishers.enterprise import Layout, list_images, list_majors
from labctl.drivers.publishers.index import IndexReader
from labctl.model.publisher import Architecture, PublishedVersion, Publisher, Sku

_PUBLISHER = Publisher(
    name="rocky",
    title="Rocky Linux",
    hosts=("dl.rockylinux.org",),
    signs="CHECKSUM.asc over CHECKSUM, where the folder has it",
)
_KINDS = {"genericcloud-base": "Base", "genericcloud-lvm": "LVM"}


def _pattern(sku: Sku, architecture: Architecture) -> re.Pattern[str]:
    # Before 8.7 and 9.1 there was one kind, without its name.
    kind = "(?:-Base)?" if sku.offer == "genericcloud-base" else f"-{_KINDS[sku.offer]}"
    return re.compile(
        rf"Rocky-{sku.name}-GenericCloud{kind}-{sku.name}\.(\d+)-(\d{{8}}(?:\.\d+)?)"
        rf"\.{architecture.value}\.qcow2"
    )


_LAYOUT = Layout(
    publisher=_PUBLISHER.name,
    root="https://dl.rockylinux.org/pub/rocky",
    vault="https://dl.rockylinux.org/vault/rocky",
    images=lambda release, architecture: f"{release}/images/{architecture.value}",
    pattern=_pattern,
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    suffix = "" if offer == "genericcloud-base" else "-lvm"
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=major,
            title=f"Rocky Linux {major}",
            definition=f"rocky-{major}{suffix}",
        )
        for major in list_majors(index, _LAYOUT)
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    return list_images(index, _LAYOUT, sku, architecture)


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(
        _PUBLISHER.name,
        {"genericcloud-base": "cloud-init, one partition", "genericcloud-lvm": "cloud-init, LVM"},
    ),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
