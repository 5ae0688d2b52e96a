"""Reads what indexes are made of: JSON with places, folder listings, lists of checksums."""

import re
from html.parser import HTMLParser
from typing import Any, Self
from urllib.parse import unquote

from typing_extensions import override

from labctl.drivers.publishers.failure import misunderstood
from labctl.drivers.publishers.index import IndexReader
from labctl.model.publisher import Algorithm, Checksum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*/?")
_BSD = re.compile(r"(SHA256|SHA512) \(([^()]+)\) = ([0-9A-Fa-f]+)")
_GNU = re.compile(r"([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})\s+\*?(\S+)")


class Node:
    """A JSON value that knows where it stands, so that an error can say it."""

    def __init__(self, value: Any, publisher: str, url: str, place: str = "") -> None:  # noqa: ANN401
        self._value = value
        self._publisher = publisher
        self._url = url
        self._place = place

    @classmethod
    def read(cls, index: IndexReader, url: str) -> Self:
        """Fetch an index and stand at its top."""
        return cls(index.json(url), index.publisher, url)

    def find(self, key: str) -> "Node | None":
        """The value of a key that may be missing or null. Raises PublisherError for no mapping."""
        value = self._mapping().get(key)
        return None if value is None else self._at(value, key)

    def get(self, key: str) -> "Node":
        """The value of a key that must be there."""
        found = self.find(key)
        if found is None:
            raise self._wrong(f"has no {key!r}")
        return found

    def items(self) -> list[tuple[str, "Node"]]:
        """The entries of a mapping."""
        return [(str(key), self._at(value, key)) for key, value in self._mapping().items()]

    def elements(self) -> list["Node"]:
        """The elements of a list."""
        if not isinstance(self._value, list):
            raise self._wrong("is not a list")
        return [self._at(value, str(number)) for number, value in enumerate(self._value)]

    def text(self) -> str:
        """A text."""
        if not isinstance(self._value, str):
            raise self._wrong("is not text")
        return self._value

    def size(self) -> int | None:
        """A number of bytes; Fedora writes it as text. 0 and nothing say nothing."""
        try:
            size = int(self._value)
        except (TypeError, ValueError):
            raise self._wrong("is not a number of bytes") from None
        return size if size > 0 else None

    def checksum(self, algorithm: Algorithm) -> Checksum:
        """A checksum in hexadecimal digits."""
        digest = self.text().lower()
        if len(digest) != algorithm.digits or not re.fullmatch(r"[0-9a-f]+", digest):
            raise self._wrong(f"is not a {algorithm.value} checksum")
        return Checksum(algorithm=algorithm, digest=digest)

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self._value, dict):
            raise self._wrong("is not a mapping")
        return self._value

    def _at(self, value: Any, key: str) -> "Node":  # noqa: ANN401
        place = f"{self._place}.{key}" if self._place else str(key)
        return Node(value, self._publisher, self._url, place)

    def _wrong(self, why: str) -> Exception:
        return misunderstood(self._publisher, self._url, f"{self._place or 'the top'} {why}")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the target of a link."""
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def read_listing(index: IndexReader, url: str) -> tuple[str, ...]:
    """The names in a folder as web servers list it; folders end with a slash.

    Only plain names of this folder count: `../`, `/x`, `?C=M;O=A` and `https://...` do not.
    Raises PublisherError for a page without any.
    """
    return parse_listing(index.publisher, url, index.text(url))


def find_listing(index: IndexReader, url: str) -> tuple[str, ...]:
    """The same for a folder that need not exist."""
    page = index.find_text(url)
    return () if page is None else parse_listing(index.publisher, url, page)


def parse_listing(publisher: str, url: str, page: str) -> tuple[str, ...]:
    """Take the names out of a page."""
    links = _Links()
    links.feed(page)
    targets = (unquote(target).removeprefix("./") for target in links.targets)
    names = tuple(dict.fromkeys(target for target in targets if _NAME.fullmatch(target)))
    if not names:
        raise misunderstood(publisher, url, "it lists no files")
    return names


def parse_sums(text: str) -> dict[str, Checksum]:
    """Read a list of checksums, as `sha256sum` writes it or as BSD does; the strongest counts.

    Headings, comments, sizes, MD5 and SHA-1 are passed over: Flatcar's DIGESTS hold all of these.
    """
    found: dict[str, Checksum] = {}
    for line in map(str.strip, text.splitlines()):
        if match := _BSD.fullmatch(line):
            algorithm, name, digest = Algorithm(match[1].lower()), match[2], match[3].lower()
        elif match := _GNU.fullmatch(line):
            digest, name = match[1].lower(), match[2].rsplit("/", 1)[-1]
            algorithm = (
                Algorithm.SHA512 if len(digest) == Algorithm.SHA512.digits else Algorithm.SHA256
            )
        else:
            continue
        known = found.get(name)
        if len(digest) != algorithm.digits:
            continue
        if known is None or known.algorithm.digits < algorithm.digits:
            found[name] = Checksum(algorithm=algorithm, digest=digest)
    return found
