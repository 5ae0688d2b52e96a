"""Finds out, attempt by attempt, whether an SSH server has begun to answer."""

import errno
import os
import socket
import time

from labctl.drivers.ssh_exchange import Check, is_ready
from labctl.errors import LabError

_SLICE = 0.2  # seconds between two looks at whether to give up
_GONE_AFTER = 60_000  # milliseconds without an acknowledgement


class SshError(LabError):
    """The connection cannot be made, or was lost."""


class SilentError(SshError):
    """Nobody said anything, not even no."""


class NobodyError(SshError):
    """The port is closed. On a forwarded port: the emulator is not up yet, or gone."""


class Pacer:
    """How long to wait for an answer, and how long before asking again.

    A port that slirp forwards accepts at once, whether or not the guest is there. While the guest
    has no network, the question is lost after a second, and the next answer to a lost one comes
    many seconds later: asking anew each second is the fastest way. Once the guest itself has hung
    up, it has a network; silence then means a busy sshd, which must not be asked again and again.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._pause = 0.05
        self._patience = 6.0
        self.is_answering = False

    def patience(self, now: float) -> float:
        """Seconds for which one attempt waits for the banner."""
        return (
            self._patience if self.is_answering else min(10.0, max(1.0, (now - self._start) / 20))
        )

    def note_silence(self) -> None:
        """Nobody said anything for that long."""
        if self.is_answering:
            self._patience = min(20.0, self._patience * 1.5)

    def next_pause(self) -> float:
        """Seconds until the next attempt, after the guest hung up."""
        pause, self._pause = self._pause, min(0.5, self._pause * 1.08)
        return pause


def open_socket(host: str, port: int, deadline: float, check: Check) -> socket.socket:
    """Return a socket on which the banner of an SSH server waits to be read."""
    opened = socket.socket()
    try:
        _connect_socket(opened, host, port, deadline, check)
        _wait_for_banner(opened, host, port, deadline, check)
    except OSError as error:
        opened.close()
        raise SshError(f"{host}:{port} refuses the connection", detail=str(error)) from error
    except BaseException:
        opened.close()
        raise
    return opened


def _connect_socket(
    opened: socket.socket, host: str, port: int, deadline: float, check: Check
) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # With paramiko's keepalives: a peer that is gone without a word is noticed.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER)
    opened.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    code = opened.connect_ex((host, port))
    if code == errno.EINPROGRESS:
        _wait_ready(opened, host, port, deadline, check, for_writing=True)
        code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == errno.ECONNREFUSED:
        raise NobodyError(f"{host}:{port} refuses the connection")
    if code:
        raise OSError(code, os.strerror(code))


def _wait_for_banner(
    opened: socket.socket, host: str, port: int, deadline: float, check: Check
) -> None:
    _wait_ready(opened, host, port, deadline, check, for_writing=False)
    start = opened.recv(4, socket.MSG_PEEK)
    if not start:
        raise OSError("closed before the banner")
    if not b"SSH-".startswith(start):
        raise OSError(f"no SSH server: it says {start!r}")


def _wait_ready(
    opened: socket.socket,
    host: str,
    port: int,
    deadline: float,
    check: Check,
    *,
    for_writing: bool,
) -> None:
    while (left := deadline - time.monotonic()) > 0:
        check()
        if is_ready(opened.fileno(), min(_SLICE, left), for_writing=for_writing):
            return
    raise SilentError(f"{host}:{port} does not answer")
