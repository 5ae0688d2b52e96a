"""Posts JSON to a server of the user's: signed, bounded, never sent elsewhere."""

import hashlib
import hmac
import os
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from labctl.drivers.deadline import Deadline, DeadlineAdapter
from labctl.errors import LabError
from labctl.model.extension_rules import is_near
from labctl.model.webhook import Webhook, host_of

SIGNATURE = "Labctl-Signature"  # sha256=<HMAC of the body, in hexadecimal digits>
ANSWER_LIMIT = 64 * 1024  # bytes of an answer that are read
_SECRET_LIMIT = 4096
_REQUEST_LIMIT = timedelta(minutes=1)
_LATE = "did not answer in time"


class WebhookError(LabError):
    """Nobody answered, or the secret that signs cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes


def post(
    webhook: Webhook,
    body: bytes,
    *,
    content_type: str = "application/json",
    timeout: timedelta,
) -> Answer:
    """Post and return the answer, whatever its status; a redirect is an answer like others.

    Raises WebhookError. Nothing of it repeats the query of the URL or the secret.
    """
    headers = {"Content-Type": content_type, "User-Agent": "labctl", "Accept": "application/json"}
    if webhook.secret_file is not None:
        headers[SIGNATURE] = sign(body, read_secret(Path(webhook.secret_file)))
    limit, host = min(timeout, _REQUEST_LIMIT), host_of(webhook.url)
    with Deadline(limit) as deadline, _open_session(webhook.url) as session:
        try:
            with session.post(
                webhook.url,
                data=body,
                headers=headers,
                timeout=limit.total_seconds(),
                allow_redirects=False,
                stream=True,
            ) as answer:
                if deadline.has_passed:  # a shut connection looks like the end of the head
                    raise WebhookError(f"{host} {_LATE}")
                return Answer(status=answer.status_code, body=_read(answer, deadline))
        # ValueError: names that cannot be one of a host. OSError: what requests raises, and more.
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            reason = _LATE if deadline.has_passed else _reason(error)
            # Without its cause: that repeats the whole URL.
            raise WebhookError(f"{host} {reason}") from None


def sign(body: bytes, secret: bytes) -> str:
    """The value of the signature header."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def read_secret(path: Path) -> bytes:
    """What is in the file, without the line's end.

    Raises WebhookError, which never repeats it: no file, open to others, empty, too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise WebhookError(f"secret file {str(path)!r} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)  # of what was opened, not of what has the name now
        if not stat.S_ISREG(found.st_mode):
            raise WebhookError(f"secret file {str(path)!r} is no regular file")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise WebhookError(
                f"secret file {str(path)!r} may be used by others (mode {mode:04o}); "
                f"run: chmod 600 {path}"
            )
        secret = os.read(descriptor, _SECRET_LIMIT + 2).rstrip(b"\r\n")
    finally:
        os.close(descriptor)
    if not secret or len(secret) > _SECRET_LIMIT:
        raise WebhookError(f"secret file {str(path)!r} must hold 1 to {_SECRET_LIMIT} bytes")
    return secret


def _open_session(url: str) -> requests.Session:
    session = requests.Session()
    session.auth = _no_other_credential
    # A proxy has no business between us and this host or its neighbours.
    session.trust_env = not is_near(urlsplit(url).hostname or "")
    for scheme in ("http://", "https://"):
        session.mount(scheme, DeadlineAdapter())
    return session


def _read(answer: requests.Response, deadline: Deadline) -> bytes:
    """The body, or what came of it in time: its status has been given."""
    content = b""
    try:
        for chunk in answer.iter_content(4096):
            content += chunk
            if len(content) >= ANSWER_LIMIT:
                break
    except (OSError, urllib3.exceptions.HTTPError):
        if not deadline.has_passed:
            raise
    return content[:ANSWER_LIMIT]


def _no_other_credential(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Otherwise requests would take one from ~/.netrc.
    return request


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "has a certificate that is not trusted"
    if isinstance(error, requests.Timeout):
        return _LATE
    return "is not reachable"
