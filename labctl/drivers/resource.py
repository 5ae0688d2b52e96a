"""Fetches the files that extensions name by URL: verified, bounded, cached by content."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from labctl.errors import HostError, LabError
from labctl.model.extension_rules import find_url_fault
from labctl.model.own_address import is_own_url

if TYPE_CHECKING:
    import requests

LIMIT = 16 * 2**20  # bytes; it is sent into every guest and kept in memory meanwhile
_HOPS = 5
_CHUNK = 64 * 1024
_REFUSED = {401, 403, 407}
_MOVED = {301, 302, 303, 307, 308}

# It logs whole URLs, and a query may be a credential.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class CredentialRefusedError(LabError):
    """The server wants a credential, or another one."""


class UnreachableError(LabError):
    """No server answered, or it cannot serve now; what is cached may be used."""


class UnusableError(LabError):
    """It is not there, too large, or not what its checksum says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What to fetch, and how to be let in."""

    url: str
    sha256: str
    allow_http: bool = False
    query: str = field(default="", repr=False)  # a signature, for example
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The URL for people: without its query."""
        return _show(self.url)

    @property
    def is_protected(self) -> bool:
        """Does fetching it need a credential?"""
        return bool(self.query or self.headers)


def probe(resource: Resource, *, timeout: timedelta) -> None:
    """Ask whether it could be fetched now, without fetching it.

    Raises CredentialRefusedError, UnreachableError, UnusableError.
    """
    with _session(retries=0) as session:
        try:
            with _open(session, "HEAD", resource, timeout):
                return
        except LabError:
            # A signature may hold for GET alone, and not every server knows HEAD.
            with _open(session, "GET", resource, timeout, {"Range": "bytes=0-0"}):
                return


def download(resource: Resource, *, cache: Path, timeout: timedelta) -> bytes:
    """Fetch it, check it, keep a copy (0600) in `cache`.

    Raises CredentialRefusedError, UnreachableError, UnusableError, and HostError without room.
    """
    import requests

    with _session(retries=2) as session, _open(session, "GET", resource, timeout) as answer:
        content = bytearray()
        try:
            for chunk in answer.iter_content(_CHUNK):
                content += chunk
                if len(content) > LIMIT:
                    raise UnusableError(
                        f"{resource.shown} has more than {LIMIT // 2**20} MiB",
                        hint="let a small script fetch what is large",
                    )
        except requests.RequestException as error:
            raise UnreachableError(f"{resource.shown} broke off: {_reason(error)}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != resource.sha256:
        raise UnusableError(
            f"{resource.shown} is not what its sha256 says",
            detail=f"expected {resource.sha256}, got {digest}, {len(content)} bytes",
            hint="look who changed it; if it was you, put the new checksum into the spec",
        )
    _keep(cache, digest, bytes(content))
    return bytes(content)


def find_cached(cache: Path, sha256: str) -> bytes | None:
    """What was fetched before, if it is still what it was."""
    try:
        content = (cache / sha256).read_bytes()
    except FileNotFoundError:
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def _keep(cache: Path, digest: str, content: bytes) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(prefix=f"{digest}.", suffix=".part", dir=cache)  # 0600
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(part).rename(cache / digest)
    except OSError as error:
        raise HostError(
            f"cannot keep what an extension needs in {str(cache)!r}",
            detail=str(error),
            hint="free space, then run it again",
        ) from error


@contextmanager
def _session(*, retries: int) -> "Iterator[requests.Session]":
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    with requests.Session() as session:
        session.auth = _no_other_credential
        tries = Retry(
            total=retries,
            redirect=False,
            backoff_factor=0.3,
            status_forcelist=(500, 502, 503, 504),
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=tries))
        yield session


def _no_other_credential(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    # Otherwise requests would take one from ~/.netrc, in the place of the one that is given.
    return request


@contextmanager
def _open(
    session: "requests.Session",
    method: str,
    resource: Resource,
    timeout: timedelta,
    more: Mapping[str, str] | None = None,
) -> "Iterator[requests.Response]":
    """Ask and follow redirects; the credential goes to nobody but the first server."""
    import requests

    url, headers = resource.url, {**resource.headers, **(more or {})}
    if resource.query:
        url += ("&" if urlsplit(url).query else "?") + resource.query.lstrip("?&")
    for _ in range(_HOPS):
        try:
            answer = session.request(
                method,
                url,
                headers=headers,
                timeout=timeout.total_seconds(),
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            # Without its cause: that repeats the whole URL.
            raise UnreachableError(f"{_show(url)} is not reachable: {_reason(error)}") from None
        with answer:
            if answer.status_code not in _MOVED or "Location" not in answer.headers:
                _require_success(answer, url)
                yield answer
                return
            following = urljoin(url, answer.headers["Location"])
        if _origin(following) != _origin(url):
            headers = dict(more or {})
        # What a server signs itself, in the place it sends us to, is its own affair.
        fault = find_url_fault(following.partition("?")[0], allow_http=resource.allow_http)
        if fault is None and is_own_url(following) and not is_own_url(resource.url):
            fault = "is this host itself, which another server must not reach through us"
        if fault is not None:
            raise UnusableError(f"{_show(url)} sends us to {_show(following)}, which {fault}")
        url = following
    raise UnusableError(f"{resource.shown} sends us on more than {_HOPS} times")


def _require_success(answer: "requests.Response", url: str) -> None:
    status = answer.status_code
    if status in _REFUSED:
        raise CredentialRefusedError(f"{_show(url)} answered {status} {answer.reason}")
    if status >= 500 or status in {408, 425, 429}:
        raise UnreachableError(f"{_show(url)} answered {status} {answer.reason}")
    if status not in {200, 206, 416}:  # 416: the first byte of an empty file
        raise UnusableError(f"{_show(url)} answered {status} {answer.reason}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _show(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _reason(error: "requests.RequestException") -> str:
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let us through"
    return "no connection"
