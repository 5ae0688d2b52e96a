"""Indexes of publishers: fetched when they changed, kept, used again when a publisher is down."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from labctl.drivers.publishers.failure import MissingError, UnreachableError, misunderstood
from labctl.drivers.publishers.transport import Transport

FRESH_FOR = timedelta(minutes=10)
LIMIT = 64 * 2**20  # bytes; the largest known index, Ubuntu's, has 18 MB
DEADLINE = timedelta(minutes=10)  # a server that sends a byte now and then must not hold us
_CHUNK = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """An index that came from the cache because the publisher is down."""

    url: str
    fetched_at: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """One entry of the cache: what came with a body."""

    url: str
    fetched_at: datetime  # when the publisher last said that this is the present state
    sha256: str
    etag: str
    last_modified: str


class IndexReader:
    """Reads indexes of one publisher, each at most once in a run."""

    def __init__(
        self, transport: Transport, cache_dir: Path, *, now: datetime, refresh: bool = False
    ) -> None:
        self._transport = transport
        self._cache_dir = cache_dir
        self._now = now
        self._refresh = refresh
        self._read: dict[str, bytes] = {}
        self._stale: dict[str, Stale] = {}

    @property
    def publisher(self) -> str:
        """The name of the publisher."""
        return self._transport.publisher.name

    @property
    def stale(self) -> tuple[Stale, ...]:
        """What was read from the cache because the publisher is down; oldest first."""
        return tuple(sorted(self._stale.values(), key=lambda each: each.fetched_at))

    def text(self, url: str) -> str:
        """Read a text index. Raises UnreachableError, MissingError, PublisherError."""
        try:
            return self.content(url).decode("utf-8")
        except UnicodeDecodeError as error:
            raise misunderstood(self.publisher, url, "it is not UTF-8 text") from error

    def find_text(self, url: str) -> str | None:
        """Read a text index that need not exist."""
        try:
            return self.text(url)
        except MissingError:
            return None

    def json(self, url: str) -> Any:  # noqa: ANN401  any JSON value
        """Read a JSON index. Raises PublisherError also for what is no JSON."""
        try:
            return json.loads(self.text(url))
        except (json.JSONDecodeError, RecursionError) as error:
            raise misunderstood(self.publisher, url, f"it is not JSON: {error}") from error

    def content(self, url: str) -> bytes:
        """Read an index as it is."""
        if url not in self._read:
            self._read[url] = self._load(url)
        return self._read[url]

    def _load(self, url: str) -> bytes:
        kept = self._find(url)
        if kept is not None:
            body = self._body_path(url).read_bytes()
            # A clock that was set back must not make an index fresh for years.
            is_fresh = timedelta() <= self._now - kept.fetched_at < FRESH_FOR
            if is_fresh and not self._refresh:
                return body
            try:
                return self._fetch(url, kept) or body
            except UnreachableError as error:
                why = "; ".join(part for part in (error.brief, error.detail) if part)
                self._stale[url] = Stale(url=url, fetched_at=kept.fetched_at, why=why)
                return body
        return self._fetch(url, None) or b""

    def _fetch(self, url: str, kept: _Kept | None) -> bytes | None:
        """Ask the publisher; None: what is kept is still right."""
        conditions = {}
        if kept is not None and kept.etag:
            conditions["If-None-Match"] = kept.etag
        if kept is not None and kept.last_modified:
            conditions["If-Modified-Since"] = kept.last_modified
        with self._transport.asking(url, conditions) as response:
            if response.status_code == HTTPStatus.NOT_MODIFIED and kept is not None:
                self._keep(url, None, kept.sha256, response.headers, kept)
                return None
            if response.status_code != HTTPStatus.OK:
                raise misunderstood(self.publisher, url, f"HTTP {response.status_code}")
            body = self._receive(url, response)
            headers = dict(response.headers)
        self._keep(url, body, hashlib.sha256(body).hexdigest(), headers, None)
        return body

    def _receive(self, url: str, response: Any) -> bytes:  # noqa: ANN401  requests.Response
        import requests

        body = bytearray()
        end = time.monotonic() + DEADLINE.total_seconds()
        try:
            for piece in response.iter_content(_CHUNK):
                body += piece
                if time.monotonic() > end:
                    raise self._transport.unreachable(
                        url, TimeoutError(f"it is not through after {DEADLINE}")
                    )
                if len(body) > LIMIT:
                    raise misunderstood(self.publisher, url, f"it is larger than {LIMIT >> 20} MiB")
        except requests.RequestException as error:
            raise self._transport.unreachable(url, error) from error
        return bytes(body)

    def _find(self, url: str) -> _Kept | None:
        """What the cache has; a damaged entry is none."""
        try:
            told = json.loads(self._facts_path(url).read_text(encoding="utf-8"))
            kept = _Kept(**{**told, "fetched_at": datetime.fromisoformat(told["fetched_at"])})
            body = self._body_path(url).read_bytes()
        except (OSError, ValueError, TypeError, KeyError):
            return None
        # A crash between the two files, or a damaged disk, must not make an index of its own.
        return kept if kept.sha256 == hashlib.sha256(body).hexdigest() else None

    def _keep(
        self,
        url: str,
        body: bytes | None,
        sha256: str,
        headers: Mapping[str, str],
        before: _Kept | None,
    ) -> None:
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        facts = {
            "url": url,
            "fetched_at": self._now.isoformat(),
            "sha256": sha256,
            "etag": headers.get("ETag") or (before.etag if before else ""),
            "last_modified": headers.get("Last-Modified")
            or (before.last_modified if before else ""),
        }
        if body is not None:
            _replace(self._body_path(url), body)
        _replace(self._facts_path(url), json.dumps(facts).encode())

    def _body_path(self, url: str) -> Path:
        return self._cache_dir / f"{self._name_of(url)}.body"

    def _facts_path(self, url: str) -> Path:
        return self._cache_dir / f"{self._name_of(url)}.json"

    def _name_of(self, url: str) -> str:
        """Name files by a hash, since addresses come from others; a mirror has its own entries."""
        mirror = self._transport.mirror.url if self._transport.mirror else ""
        return hashlib.sha256(f"{mirror}\n{url}".encode()).hexdigest()[:32]


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
