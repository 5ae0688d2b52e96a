"""A server of the user's that labctl calls: where it is, and what signs the calls."""

import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from labctl.model import spec_rules as rules
from labctl.model.extension_rules import is_near
from labctl.model.strict import Strict


def find_webhook_fault(url: str, *, allow_http: bool) -> str | None:
    """Tell why labctl cannot call `url`. Never repeats its query, which may be a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if not host or parts.scheme not in {"https", "http"} or port == 0:
        return "must be a URL such as https://hooks.example/labctl"
    if not re.fullmatch(r"[!-~]{1,2048}", url) or parts.fragment:
        return "must be printable ASCII text without blanks and without '#'"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and password; a secretFile signs what is sent"
    if parts.scheme == "http" and not allow_http:
        return "must be https; plain http needs allowHttp, and a loopback or private address"
    if parts.scheme == "http" and not is_near(host):
        return "plain http is only for loopback and private addresses, given as numbers"
    return None


def host_of(url: str) -> str:
    """The host and port of a URL, for people."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{host}:{parts.port}" if parts.port else host


class Webhook(Strict):
    """Where labctl posts JSON. Redirects are not followed."""

    url: str
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
