"""One HTTP request of a health question, with one deadline for all of it."""

import contextlib
import socket
import threading
from datetime import timedelta
from typing import Any, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection

from labctl.drivers.probe_cause import describe_cause

_BODY_LIMIT = 64 * 1024  # bytes

# An application's certificate names its service, not the port that labctl asks.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class _Deadline:
    """Shuts the socket of one request when its time is over, whatever the request waits for."""

    def __init__(self, timeout: timedelta) -> None:
        self.has_passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout.total_seconds(), self._pass)
        self._timer.daemon = True

    def watch(self, opened: socket.socket | None) -> None:
        self._socket = opened
        if self.has_passed:
            self._pass()

    def __enter__(self) -> Self:
        self._timer.start()
        _local.deadline = self
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _local.deadline = None
        self._socket = None

    def _pass(self) -> None:
        self.has_passed = True
        opened = self._socket
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


class _Local(threading.local):
    """Each thread's session, and the deadline of its request that is under way."""

    session: requests.Session | None = None
    deadline: _Deadline | None = None


_local = _Local()


class _Http(HTTPConnection):
    @override
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)


class _Https(HTTPSConnection):
    @override
    def _new_conn(self) -> socket.socket:
        opened = super()._new_conn()
        _watch(opened)  # before the handshake, which may hang, too
        return opened

    @override
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)  # the handshake has replaced it


def _watch(opened: socket.socket | None) -> None:
    if _local.deadline is not None:
        _local.deadline.watch(opened)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _session() -> requests.Session:
    if _local.session is None:
        session = requests.Session()
        session.trust_env = False  # proxies and .netrc are not for instances
        session.verify = False
        session.headers.update({"User-Agent": "labctl", "Connection": "close"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(max_retries=0, pool_connections=1, pool_maxsize=1))
        _local.session = session
    return _local.session


def get(url: str, headers: dict[str, str], timeout: timedelta) -> tuple[int, bytes]:
    """GET with one deadline for all of it; that of requests is for each read."""
    with _Deadline(timeout) as deadline:
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
