"""Addresses: which ones may be asked, and how a user's mirror stands in for the publisher."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from labctl.drivers.publishers.failure import PublisherError, misunderstood
from labctl.errors import InvalidError
from labctl.model.publisher import Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A place that a user trusts to hold the same paths as the publisher's hosts."""

    url: str  # without a slash at the end

    @classmethod
    def from_environment(
        cls, publisher: str, environment: Mapping[str, str] | None = None
    ) -> Self | None:
        """Read `LABCTL_MIRROR_FEDORA_COREOS` for `fedora-coreos`.

        Raises InvalidError unless it is https, or http on this host.
        """
        environment = os.environ if environment is None else environment
        name = variable_of(publisher)
        url = environment.get(name, "").rstrip("/")
        if not url:
            return None
        parts = urlsplit(url)
        is_local = parts.scheme == "http" and is_loopback(parts.hostname)
        if not parts.hostname or not (parts.scheme == "https" or is_local):
            raise InvalidError(
                f"{name} is {url!r}, which is no address of a mirror",
                hint="use https://HOST/PATH; http is only allowed on 127.0.0.1",
            )
        return cls(url=url)


def variable_of(publisher: str) -> str:
    """The environment variable that names a mirror of a publisher."""
    return f"LABCTL_MIRROR_{publisher.upper().replace('-', '_')}"


def is_loopback(host: str | None) -> bool:
    """Does the name lead to this host and nowhere else?"""
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def locate(publisher: Publisher, mirror: Mirror | None, url: str) -> str:
    """Where to fetch a publisher's address: there, or the same path at the mirror.

    Raises PublisherError for a host that is not the publisher's.
    """
    parts = urlsplit(url)
    # The whole authority: a user or a port that the publisher does not have is not its own either.
    if parts.scheme != "https" or parts.netloc.lower() not in publisher.hosts:
        raise PublisherError(
            f"publisher {publisher.name!r} names an address that is not its own: {url!r}",
            detail=f"its hosts: {', '.join(publisher.hosts)}; only https",
            hint="the index may be forged; set another mirror or report it to the publisher",
        )
    return url if mirror is None else f"{mirror.url}{parts.path}"


def is_allowed(url: str, mirror: Mirror | None) -> bool:
    """May this address be asked, also after a redirection? https; http only to a local mirror."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return (
        parts.scheme == "http"
        and mirror is not None
        and mirror.url.startswith("http://")
        and parts.netloc == urlsplit(mirror.url).netloc
    )


def join(publisher: str, base: str, relative: str) -> str:
    """Append a path from an index to the address of a folder; it cannot lead out of that folder.

    Raises PublisherError for `../x`, `/x`, `//host/x`, `https://host/x` and the like.
    """
    steps = unquote(relative).split("/")
    if not relative or any(step in {"", ".", ".."} or not _is_plain(step) for step in steps):
        raise misunderstood(publisher, base, f"it names the path {relative!r}")
    return f"{base.rstrip('/')}/{quote('/'.join(steps), safe='/+~:@')}"


def _is_plain(step: str) -> bool:
    return not any(
        letter in '\\?#%"<>' or ord(letter) < 33 or ord(letter) == 127 for letter in step
    )
