"""A server of the user's that labctl calls: where it is, and what signs the calls."""

import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from labctl.model import spec_rules as rules
from labctl.model.extension_rules import MASK, find_host_fault
from labctl.model.strict import Strict


def find_webhook_fault(url: str, *, allow_http: bool) -> str | None:
    """Tell why labctl cannot call `url`. Never repeats its query, which may be a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # without its text, which may repeat a password
        return "is no URL: its host or its port is wrong"
    if not host or parts.scheme not in {"https", "http"} or port == 0:
        return "must be a URL such as https://hooks.example/labctl"
    if not re.fullmatch(r"[!-~]{1,2048}", url) or parts.fragment:
        return "must be printable ASCII text without blanks and without '#'"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and password; a secretFile signs what is sent"
    return find_host_fault(host, is_plain=parts.scheme == "http", allow_http=allow_http)


def host_of(url: str) -> str:
    """The host and port of a URL, for people."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{host}:{parts.port}" if parts.port else host


def mask_url(url: str) -> str:
    """The URL without what may be secret in it: its path and its query."""
    parts = urlsplit(url)
    is_plain = parts.path in {"", "/"} and not parts.query
    return url if is_plain else f"{parts.scheme}://{host_of(url)}/{MASK}"


class Webhook(Strict):
    """Where labctl posts JSON. Redirects are not followed."""

    url: str = Field(repr=False)  # its path and its query may be secret
    allow_http: bool = Field(
        default=False, description="Allow plain http to loopback and private addresses"
    )
    secret_file: str | None = Field(
        default=None,
        description="File (0600) whose content signs what is sent; relative to the spec file",
    )

    @model_validator(mode="after")
    def _require_usable_url(self) -> Self:
        fault = find_webhook_fault(self.url, allow_http=self.allow_http)
        rules.require([(("url",), fault)] if fault else [])
        return self

    @property
    def host(self) -> str:
        """Whom it calls, for people."""
        return host_of(self.url)

    @property
    def masked(self) -> Self:
        """The same, to be shown where nobody asks for the spec."""
        return self.model_copy(update={"url": mask_url(self.url)})
