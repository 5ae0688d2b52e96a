"""One deadline for all of an HTTP request, where those of requests are for each read."""

import contextlib
import os
import socket
import threading
from datetime import timedelta
from typing import Any, Self

import urllib3
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection


class Deadline:
    """Shuts the connection of one request when its time is over, whatever the request waits for.

    It is about the requests that this thread makes inside of it, by way of a DeadlineAdapter.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.has_passed = False
        self._mutex = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout.total_seconds(), self._pass)
        self._timer.daemon = True

    def watch(self, opened: socket.socket) -> None:
        """Shut this one, too, when the time is over."""
        # A descriptor of our own: TLS takes the socket's away before its handshake, which may hang.
        with self._mutex:
            self._close()
            self._socket = socket.socket(fileno=os.dup(opened.fileno()))
            if self.has_passed:
                self._shut()

    def __enter__(self) -> Self:
        """Let the time begin."""
        self._timer.start()
        _local.deadline = self
        return self

    def __exit__(self, *_: object) -> None:
        """Let the time end."""
        self._timer.cancel()
        _local.deadline = None
        with self._mutex:
            self._close()

    def _pass(self) -> None:
        with self._mutex:
            self.has_passed = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Local(threading.local):
    """The deadline of what each thread asks now."""

    deadline: Deadline | None = None


_local = _Local()


def _watch(opened: socket.socket) -> socket.socket:
    if _local.deadline is not None:
        _local.deadline.watch(opened)
    return opened


class _Http(HTTPConnection):
    @override
    def _new_conn(self) -> socket.socket:
        return _watch(super()._new_conn())


class _Https(HTTPSConnection):
    @override
    def _new_conn(self) -> socket.socket:
        return _watch(super()._new_conn())


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class DeadlineAdapter(HTTPAdapter):
    """Makes connections that the Deadline of their thread shuts; also those to a proxy."""

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    @override
    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if isinstance(manager, urllib3.ProxyManager):  # one of SOCKS has connections of its own
            manager.pool_classes_by_scheme = _POOLS
        return manager
