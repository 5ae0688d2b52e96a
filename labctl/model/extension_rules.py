"""Rules of one extension: where it comes from, and what its settings may hold."""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from pydantic import JsonValue

from labctl.model.spec_rules import Faults

SETTINGS_LIMIT = 64 * 1024  # bytes of JSON
MASK = "********"  # what is printed in the place of a protected value
# What fetching a `url` needs; these settings stay with the controller.
FETCH_SETTINGS = ("bearerToken", "headers", "sasToken")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")  # a file of this name is made in the guest
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{1,8192}")
_SIGNED = {"sig", "x-amz-signature", "token", "access_token"}


def find_settings_faults(settings: Mapping[str, JsonValue], key: str) -> Faults:
    """Find names that make no file name, and settings that are too large."""
    faults: Faults = [
        (
            (key, name),
            "a setting's name begins with a letter and goes on with at most 63 letters, digits "
            "and . _ -",
        )
        for name in settings
        if not _NAME.fullmatch(name)
    ]
    size = len(json.dumps(settings).encode())
    if size > SETTINGS_LIMIT:
        faults.append(((key,), f"has {size} bytes as JSON; at most {SETTINGS_LIMIT} are allowed"))
    return faults


def find_protected_faults(settings: Mapping[str, JsonValue], *, has_url: bool) -> Faults:
    """Find masks in the place of values, and credentials of a `url` that are none."""
    at = "protectedSettings"
    faults = find_settings_faults(settings, at)
    faults += [
        ((at, name), "is the mask that labctl prints; give the value, or use protectedSettingsFile")
        for name, value in settings.items()
        if value == MASK
    ]
    if not has_url:
        return faults
    for name in ("bearerToken", "sasToken"):
        value = settings.get(name, "x")
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            faults.append(((at, name), "must be one line of printable ASCII text"))
    headers = settings.get("headers", {})
    if not isinstance(headers, dict):
        faults.append(((at, "headers"), "must be a mapping of header names to text"))
        return faults
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            faults.append(((at, "headers"), "has a name that is none of an HTTP header"))
        elif not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            faults.append(((at, "headers", name), "must be one line of printable ASCII text"))
    return faults


def find_url_fault(url: str, *, allow_http: bool) -> str | None:
    """Tell why an extension cannot be fetched from `url`. Never repeats its query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # without its text, which may repeat a password
        return "is no URL: its host or its port is wrong"
    if not host or parts.scheme not in {"https", "http"} or port == 0:
        return "must be a URL such as https://files.example/install.sh"
    if not re.fullmatch(r"[!-~]+", url) or parts.fragment:
        return "must be printable ASCII text without blanks and without '#'"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and password; give protectedSettings.headers"
    if any(name.lower() in _SIGNED for name, _ in parse_qsl(parts.query)):
        return "holds a signature; move its query to protectedSettings.sasToken"
    return find_host_fault(host, is_plain=parts.scheme == "http", allow_http=allow_http)


def find_host_fault(host: str, *, is_plain: bool, allow_http: bool) -> str | None:
    """Tell why labctl does not call this host; `is_plain`: by http."""
    name = host.removesuffix(".")
    if len(name) > 253 or not all(0 < len(label) < 64 for label in name.split(".")):
        return "must name a host of at most 253 characters, at least 1 and at most 63 between dots"
    if is_plain and not allow_http:
        return "must be https; plain http needs allowHttp, and a loopback or private address"
    if is_plain and not is_near(host):
        return "plain http is only for loopback and private addresses, given as numbers"
    return None


def is_near(host: str) -> bool:
    """Is it `localhost`, or the number of a loopback or private address?"""
    # A name may mean another machine tomorrow, so it does not count.
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def mask(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The names of protected settings, without their values."""
    return dict.fromkeys(settings, MASK)


def walk_texts(settings: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar below a setting that may be a secret, as text, with its path: `a.b`."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from walk_texts(value, f"{path}.{key}" if path else key)
    elif isinstance(settings, list):
        for place, value in enumerate(settings):
            yield from walk_texts(value, f"{path}[{place}]")
    elif isinstance(settings, str | int | float) and not isinstance(settings, bool):
        yield path, str(settings)
