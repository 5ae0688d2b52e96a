"""One HTTP request of a health question, with one deadline for all of it."""

import threading
from datetime import timedelta

import requests
import urllib3

from labctl.drivers.deadline import Deadline, DeadlineAdapter
from labctl.drivers.probe_cause import describe_cause

_BODY_LIMIT = 64 * 1024  # bytes

# An application's certificate names its service, not the port that labctl asks.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class _Local(threading.local):
    """Each thread's session."""

    session: requests.Session | None = None


_local = _Local()


def _session() -> requests.Session:
    if _local.session is None:
        session = requests.Session()
        session.trust_env = False  # proxies and .netrc are not for instances
        session.verify = False
        session.headers.update({"User-Agent": "labctl", "Connection": "close"})
        for scheme in ("http://", "https://"):
            session.mount(
                scheme, DeadlineAdapter(max_retries=0, pool_connections=1, pool_maxsize=1)
            )
        _local.session = session
    return _local.session


def get(url: str, headers: dict[str, str], timeout: timedelta) -> tuple[int, bytes]:
    """GET with one deadline for all of it."""
    with Deadline(timeout) as deadline:
        try:
            with _session().get(
                url,
                headers=headers,
                timeout=timeout.total_seconds(),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = answer.raw.read(_BODY_LIMIT)
                status = answer.status_code
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if deadline.has_passed:
                raise TimeoutError("timed out") from error
            raise OSError(describe_cause(error)) from error
    if deadline.has_passed:  # a shut socket looks like the end of the answer
        raise TimeoutError("timed out")
    return status, body
