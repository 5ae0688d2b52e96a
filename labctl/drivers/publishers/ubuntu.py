"""Ubuntu: simplestreams (released and daily), SHA256SUMS with a detached signature."""

import re

from labctl.drivers.publishers.adapter import Adapter, by_number, offers_of
from labctl.drivers.publishers.addresses import join
from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.numbering import dated, ordered
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

_ROOT = "https://cloud-images.ubuntu.com"
_STREAMS = {"server": ("releases", "released"), "server-daily": ("daily", "daily")}
_IMAGE = "disk1.img"
_RELEASE = re.compile(r"(\d{2})\.(\d{2})")

_PUBLISHER = Publisher(
    name="ubuntu",
    title="Ubuntu (Canonical)",
    hosts=("cloud-images.ubuntu.com",),
    signs="SHA256SUMS.gpg, detached, over SHA256SUMS",
    note="16.04 and 18.04 get no images any more; their last ones stay in the streams",
)


def _list_skus(index: IndexReader, offer: str) -> tuple[Sku, ...]:
    found = {}
    for _, product in _read_products(index, offer):
        if not _is_server(product):
            continue
        release = product.get("version").text()
        if _RELEASE.fullmatch(release):
            title = product.find("release_title")
            found[release] = Sku(
                publisher=_PUBLISHER.name,
                offer=offer,
                name=release,
                title=f"Ubuntu {title.text() if title else release}",
                definition=f"ubuntu-{release.replace('.', '-')}{offer.removeprefix('server')}",
            )
    return tuple(found[name] for name in sorted(found, key=by_number))


def _list_versions(
    index: IndexReader, sku: Sku, architecture: Architecture
) -> tuple[PublishedVersion, ...]:
    root = f"{_ROOT}/{_STREAMS[sku.offer][0]}"
    major, minor = by_number(sku.name)
    found = []
    for _, product in _read_products(index, sku.offer):
        if not _is_server(product) or product.get("version").text() != sku.name:
            continue
        if product.get("arch").text() != architecture.debian_name:
            continue
        for build, published in product.get("versions").items():
            version = dated(major, minor, build)
            item = published.get("items").find(_IMAGE)
            if version is None or item is None:
                continue
            url = join(_PUBLISHER.name, root, item.get("path").text())
            sums = f"{url.rsplit('/', 1)[0]}/SHA256SUMS"
            checksum = item.find(Algorithm.SHA256.value)
            size = item.find("size")
            found.append(
                PublishedVersion(
                    version=version,
                    build=build,
                    url=url,
                    architecture=architecture,
                    checksum=checksum.checksum(Algorithm.SHA256) if checksum else None,
                    sums_urls=(sums,),
                    signature=Signature(covers=Covers.SUMS, url=f"{sums}.gpg", sums_url=sums),
                    size=size.size() if size else None,
                )
            )
    return ordered(_PUBLISHER.name, root, found)


def _read_products(index: IndexReader, offer: str) -> list[tuple[str, Node]]:
    folder, stream = _STREAMS[offer]
    url = f"{_ROOT}/{folder}/streams/v1/com.ubuntu.cloud:{stream}:download.json"
    return Node.read(index, url).get("products").items()


def _is_server(product: Node) -> bool:
    os = product.find("os")
    return os is None or os.text() == "ubuntu"


ADAPTER = Adapter(
    publisher=_PUBLISHER,
    offers=offers_of(
        _PUBLISHER.name,
        {"server": "Server, tested releases", "server-daily": "Server, daily builds"},
    ),
    list_skus=_list_skus,
    list_versions=_list_versions,
)
