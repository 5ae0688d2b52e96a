"""Fetches large files: goes on where it stopped, and trusts only the checksum over the whole."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from labctl.drivers.publishers.failure import PublisherError, UnreachableError, UntrustedError
from labctl.drivers.publishers.transport import Transport
from labctl.drivers.publishers.unpack import SUFFIX
from labctl.errors import HostError, InvalidError, RefusedError
from labctl.model.publisher import Checksum

if TYPE_CHECKING:
    import requests

_FACTS = ".json"
_CHUNK = 2**18
_ATTEMPTS = 5  # in a row without a single new byte
_LIMIT = 2**38  # bytes (256 GiB); no cloud image comes near
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _Hash(Protocol):
    def update(self, content: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True, kw_only=True)
class _Download:
    """One file on its way, open for writing."""

    transport: Transport
    url: str
    path: Path
    facts: Path  # beside it: what the server said of the file
    file: BinaryIO
    checksum: Checksum
    size: int | None
    say: Callable[[str], None]
    show: Callable[[int, int | None], None]
    hash: _Hash  # of what is there
    have: int  # bytes that are there
    validator: str  # a strong ETag or a date: the server goes on only with the same file

    @property
    def name(self) -> str:
        """The file's name at the publisher, for people."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def is_right(self) -> bool:
        """Is it whole, and what the publisher promises?"""
        return self.hash.hexdigest() == self.checksum.digest

    def restart(self) -> None:
        """Throw away what is there."""
        self.file.seek(0)
        self.file.truncate()
        self.have = 0
        self.hash = hashlib.new(self.checksum.algorithm.value)
        self.validator = ""

    def delete(self) -> None:
        """Leave nothing behind."""
        for path in (self.path, self.facts):
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def downloading(
    transport: Transport,
    url: str,
    folder: Path,
    *,
    checksum: Checksum,
    size: int | None,
    say: Callable[[str], None],
    show: Callable[[int, int | None], None],
) -> Iterator[Path]:
    """Have the whole file with the right checksum; it is deleted when this ends well.

    What an earlier call, killed or cut, has left is used. `show` is told how many bytes are there,
    and of how many. Raises UnreachableError when the connection fails for good (the rest stays),
    UntrustedError for a wrong checksum (nothing stays), RefusedError while another process fetches
    the same file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = part_path(folder, url)
    facts = path.with_suffix(_FACTS)
    with _opened(path, url) as file:
        have = file.seek(0, os.SEEK_END)
        download = _Download(
            transport=transport,
            url=url,
            path=path,
            facts=facts,
            file=file,
            checksum=checksum,
            size=size,
            say=say,
            show=show,
            hash=_hash_of(file, checksum),
            have=have,
            validator=_load_validator(facts) if have else "",
        )
        _complete(download)
        file.flush()
        os.fsync(file.fileno())
        _require_right(download)
        try:
            yield path
        except UnreachableError:
            raise  # the signature cannot be asked for now; the file is good
        except (InvalidError, PublisherError):
            download.delete()  # the right file, but of no use
            raise
        download.delete()


def part_path(folder: Path, url: str) -> Path:
    """Where a download grows. Named by a hash: no text of an index becomes part of a path."""
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"


def ensure_forgotten(folder: Path, url: str) -> bool:
    """Delete what earlier calls have left, unless one is at it. False: there was nothing."""
    path = part_path(folder, url)
    if not path.exists():
        return False
    with suppress(RefusedError), _opened(path, url):
        for each in (path.with_suffix(_FACTS), path.with_suffix(SUFFIX), path):
            with suppress(FileNotFoundError):
                each.unlink()
    return not path.exists()


def ensure_others_forgotten(folder: Path, paths: Sequence[Path], *, kept: Collection[str]) -> None:
    """Delete those of `paths` that are not of the URLs in `kept`, unless somebody is at them."""
    wanted = {part_path(folder, url) for url in kept}
    for path in paths:
        if path in wanted:
            continue
        with suppress(RefusedError), _opened(path, path.name):
            for each in (path.with_suffix(_FACTS), path.with_suffix(SUFFIX), path):
                each.unlink(missing_ok=True)


def list_parts(folder: Path) -> list[Path]:
    """The downloads that are under way, or were."""
    return list(folder.glob("*.part"))


def _require_right(download: _Download) -> None:
    if download.is_right:
        return
    download.delete()
    algorithm = download.checksum.algorithm.value
    raise UntrustedError(
        f"{download.name!r} does not have the checksum that the publisher tells",
        detail=f"expected {download.checksum}\n"
        f"found    {algorithm}:{download.hash.hexdigest()} over {download.have} bytes",
        hint="the download was deleted and nothing was imported; try again, or another mirror",
    )


def _complete(download: _Download) -> None:
    """Fetch what is missing, in as many answers as it takes while each brings something."""
    import requests

    if download.have and download.is_right:
        download.say(f"all {download.have} bytes are here from before")
        return
    failures = 0
    while True:
        before = download.have
        try:
            if _receive(download):
                return
            error: Exception = PublisherError("the connection ended early")
        except (requests.RequestException, UnreachableError) as failure:
            error = failure
        failures = 0 if download.have > before else failures + 1
        if isinstance(error, UnreachableError) or failures >= _ATTEMPTS:
            raise _given_up(download, error) from error
        download.say(f"the connection was cut after {download.have} bytes; asking for the rest")


def _given_up(download: _Download, error: Exception) -> UnreachableError:
    when = " in the middle of a download" if download.have else ""
    return UnreachableError(
        f"publisher {download.transport.publisher.name!r} does not answer{when}",
        detail=f"{download.url}: {getattr(error, 'detail', '') or error}; "
        f"{download.have} bytes are here and are kept",
        hint="run the same command again, it goes on where this ended",
    )


def _receive(download: _Download) -> bool:
    """Take what one answer brings. True: that was the end of the file."""
    if download.have and not download.validator:
        download.say("begins anew: nothing says whether the server still has the same file")
        download.restart()
    wish = {}
    if download.have:
        wish = {"Range": f"bytes={download.have}-", "If-Range": download.validator}
    with download.transport.asking(download.url, wish) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            download.say("begins anew: the server's file is shorter than what is here")
            download.restart()
            return False
        total = _place(download, response)
        _require_size_and_room(download, total)
        download.validator = _validator_of(response.headers) or download.validator
        facts = {"url": download.url, "validator": download.validator}
        download.facts.write_text(json.dumps(facts), encoding="utf-8")
        if download.have:
            download.say(f"goes on after {download.have} bytes")
        _take(download, response, total)
    whole = total or download.size
    return whole is None or download.have >= whole


def _take(download: _Download, response: "requests.Response", total: int | None) -> None:
    limit = min(download.size or _LIMIT, total or _LIMIT)
    for piece in response.iter_content(_CHUNK):
        if download.have + len(piece) > limit:
            download.delete()
            raise UntrustedError(
                f"{download.name!r} is longer than the publisher tells",
                detail=f"{download.url}: more than {limit} bytes",
                hint="the download was deleted and nothing was imported",
            )
        download.file.write(piece)
        download.hash.update(piece)
        download.have += len(piece)
        download.show(download.have, total or download.size)
    download.file.flush()


def _place(download: _Download, response: "requests.Response") -> int | None:
    """Get ready for the body of an answer; tell how long the whole file is."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        if download.have:
            download.say("begins anew: the server sends the whole file")
        download.restart()
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    told = response.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(told)
    if match is None or int(match[1]) != download.have:
        begun = download.have
        download.restart()
        raise PublisherError(
            f"the server answers with another part than was asked for: {told!r}",
            detail=f"{download.url}: asked for the bytes from {begun} on",
            hint="run the same command again, it begins anew; or set another mirror",
        )
    return None if match[3] == "*" else int(match[3])


def _require_size_and_room(download: _Download, total: int | None) -> None:
    if total is None:
        return
    if download.size is not None and total != download.size:
        raise UntrustedError(
            f"{download.name!r} does not have the size that the publisher tells",
            detail=f"{download.url}: {total} bytes, expected {download.size}",
            hint="nothing was imported; try again with --refresh, or another mirror",
        )
    folder = download.path.parent
    free = shutil.disk_usage(folder).free
    if total - download.have > free:
        raise HostError(
            f"no room for {download.name!r} in {str(folder)!r}",
            detail=f"{(total - download.have) >> 20} MiB are needed, {free >> 20} MiB are free",
            hint="free space, or choose another place with --state-dir",
        )


def _validator_of(headers: Mapping[str, str]) -> str:
    """What If-Range takes: a strong ETag, else a date. A weak ETag is not for parts."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _load_validator(facts: Path) -> str:
    try:
        return str(json.loads(facts.read_text(encoding="utf-8"))["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _hash_of(file: BinaryIO, checksum: Checksum) -> _Hash:
    found = hashlib.new(checksum.algorithm.value)
    file.seek(0)
    while piece := file.read(_CHUNK):
        found.update(piece)
    return found


@contextmanager
def _opened(path: Path, url: str) -> Iterator[BinaryIO]:
    """Open for appending and lock; the kernel ends the lock with the process."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(
                    f"{url.rsplit('/', 1)[-1]!r} is being downloaded by another process",
                    hint="wait for it, then run the same command again",
                ) from None
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # another process has just ended with it
            yield file
            return
