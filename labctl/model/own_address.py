"""Addresses of the host itself, however they are written."""

import ipaddress
import re
from urllib.parse import urlsplit

_NUMBER = re.compile(r"0x[0-9a-f]{0,16}|[0-9]{1,22}")
_OWN_NAMES = frozenset(
    {"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"}
    | {"localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6"}
)


def is_own_url(url: str) -> bool:
    """Does it lead to the host itself? Names of other domains are not looked up."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in _OWN_NAMES or host.endswith(".localhost"):
        return True
    address = _read_address(host)
    return address is not None and (
        address.is_loopback or address.is_unspecified or address.is_link_local
    )


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _read_loose_address(host)
    if isinstance(address, ipaddress.IPv6Address) and int(address) > 1:
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if int(address) < 2**32:  # ::127.0.0.1, an older way to write the same
            return ipaddress.IPv4Address(int(address))
    return address


def _read_loose_address(host: str) -> ipaddress.IPv4Address | None:
    """As the system reads what Python does not: 127.1, 0x7f.1, 0177.0.0.1, 2130706433."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        *first, last = (_read_number(part) for part in parts)
    except ValueError:
        return None
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return None
    above = sum(number << 8 * (3 - place) for place, number in enumerate(first))
    return ipaddress.IPv4Address(above + last)


def _read_number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
