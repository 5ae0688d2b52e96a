"""What every publisher's module gives: offers, SKUs and versions, read from its own indexes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from labctl.drivers.publishers.index import IndexReader
from labctl.drivers.publishers.shapes import parse_sums
from labctl.drivers.publishers.signature import strip_signature
from labctl.errors import NotFoundError
from labctl.model.publisher import Architecture, Checksum, Offer, PublishedVersion, Publisher, Sku

FindChecksum = Callable[[IndexReader, PublishedVersion], Checksum | None]
ListSkus = Callable[[IndexReader, str], tuple[Sku, ...]]


class ListVersions(Protocol):
    """Lists the versions of one SKU for one architecture, oldest first."""

    def __call__(
        self, index: IndexReader, sku: Sku, architecture: Architecture
    ) -> tuple[PublishedVersion, ...]:
        """Raises PublisherError when an index cannot be understood."""


def find_in_sums(index: IndexReader, version: PublishedVersion) -> Checksum | None:
    """Look for the checksum in the publisher's lists, the best first."""
    for url in version.sums_urls:
        text = index.find_text(url)
        found = parse_sums(strip_signature(text or "")).get(version.file_name)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One publisher."""

    publisher: Publisher
    offers: tuple[Offer, ...]
    list_skus: ListSkus = field(repr=False)
    list_versions: ListVersions = field(repr=False)
    find_checksum: FindChecksum = field(default=find_in_sums, repr=False)

    def get_offer(self, name: str) -> Offer:
        """Raises NotFoundError that tells the offers there are."""
        return _get("offer", name, self.offers, self.publisher.name)

    def get_sku(self, index: IndexReader, offer: str, name: str) -> Sku:
        """Raises NotFoundError that tells the SKUs there are."""
        skus = self.list_skus(index, self.get_offer(offer).name)
        return _get("SKU", name, skus, f"{self.publisher.name} {offer}")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Entry = TypeVar("_Entry", bound=_Named)


def _get(kind: str, name: str, entries: tuple[_Entry, ...], where: str) -> _Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    raise NotFoundError(
        f"{where!r} has no {kind} {name!r}",
        detail=f"there are: {', '.join(entry.name for entry in entries) or 'none'}",
    )


def offers_of(publisher: str, titles: Mapping[str, str]) -> tuple[Offer, ...]:
    """Make offers of names and titles."""
    return tuple(
        Offer(publisher=publisher, name=name, title=title) for name, title in titles.items()
    )


def by_number(name: str) -> tuple[int, ...]:
    """Order `9`, `10` and `10.1` as numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", name))
