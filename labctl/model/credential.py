"""When a credential expires, read off the credential itself: signed URLs and JSON Web Tokens."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

_JWT = re.compile(r"(?:Bearer\s+)?([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")


def find_expiry(text: str) -> datetime | None:
    """The moment from which a credential is refused; None when it does not tell."""
    text = text.strip()
    return _find_of_token(text) or _find_of_query(text)


def _find_of_token(text: str) -> datetime | None:
    match = _JWT.fullmatch(text)
    if match is None:
        return None
    header, claims = (_decode(part) for part in match.groups())
    expiry = claims.get("exp")
    if "alg" not in header or isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    return _from_seconds(expiry)


def _find_of_query(text: str) -> datetime | None:
    """A query string, or what follows the `?` of a URL: `se=` of Azure, `X-Amz-Expires` of S3."""
    values = {key.lower(): given[0] for key, given in parse_qs(text.rpartition("?")[2]).items()}
    if "sig" in values and "se" in values:
        return _parse_moment(values["se"])
    if "x-amz-signature" in values and values.get("x-amz-expires", "").isdecimal():
        begin = _parse_moment(values.get("x-amz-date", ""))
        seconds = min(int(values["x-amz-expires"][:9]), 10**8)
        return None if begin is None else begin + timedelta(seconds=seconds)
    return None


def _decode(part: str) -> dict[str, object]:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_seconds(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _parse_moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
