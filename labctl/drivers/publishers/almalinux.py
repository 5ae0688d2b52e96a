"""AlmaLinux: folder listings, one CHECKSUM for the folder with a detached signature."""

import re

from labctl.drivers.publishers.adapter import Adapter, offers_of
from labctl.drivers.publishers.enterprise import Layout, list_images, list_majors
from labctl.drivers.publishers.index import IndexReader
from labctl.model.publisher import Architecture, PublishedVersion, Publisher, Sku

_PUBLISHER = Publisher(
    name="almalinux",
    title="AlmaLinux",
    hosts=("repo.almalinux.org", "vault.almalinux.org"),
    signs="CHECKSUM.asc over CHECKSUM",
)


def _pattern(sku: Sku, architecture: Architecture) -> re.Pattern[str]:
    return re.compile(
        rf"AlmaLinux-{sku.name}-GenericCloud-{sku.name}\.(\d+)-(\d{{8}}(?:\.\d+)?)"
        rf"\.{architecture.value}\.qcow2"
    )


_LAYOUT = Layout(
    publisher=_PUBLISHER.name,
    root="https://repo.almalinux.org/almalinux",
    vault="https://vault.almalinux.org",
    images=lambda release, architecture: f"{release}/cloud/{architecture.value}/images",
    pattern=_pattern,
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    return tuple(
        Sku(
            publisher=_PUBLISHER.name,
            offer=offer,
            name=major,
            title=f"AlmaLinux {major}",
            definition=f"almalinux-{major}",
        )
        for major in list_majors(index, _LAYOUT)
    )


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    return list_images(index, _LAYOUT, sku, architecture)


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(_PUBLISHER.name, {"genericcloud": "cloud-init"}),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
