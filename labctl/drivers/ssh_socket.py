"""Finds out, attempt by attempt, whether an SSH server has begun to answer."""

import errno
import os
import select
import socket
import time

from labctl.drivers.ssh_exchange import Check, is_ready
from labctl.errors import LabError

_SLICE = 0.2  # seconds between two looks at whether to give up
_ATTEMPTS = 4  # before the first answer, in the time for which one waits
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
    many seconds later: asking anew, several times a second, is the fastest way. Once the guest
    itself has hung up, it has a network; silence then means a busy sshd, which must not be asked
    again and again.
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

    @property
    def attempts(self) -> int:
        """How many attempts to spread over that time."""
        return 1 if self.is_answering else _ATTEMPTS

    def note_silence(self) -> None:
        """Nobody said anything for that long."""
        if self.is_answering:
            self._patience = min(20.0, self._patience * 1.5)

    def next_pause(self) -> float:
        """Seconds until the next attempt, after the guest hung up."""
        pause, self._pause = self._pause, min(0.5, self._pause * 1.08)
        return pause


def open_socket(
    host: str, port: int, deadline: float, check: Check, *, attempts: int = 1
) -> socket.socket:
    """Return a socket on which the banner of an SSH server waits to be read.

    So many attempts are begun, evenly until the deadline; the first that is answered wins.
    """
    began = time.monotonic()
    each = max(0.0, deadline - began) / attempts
    under_way: list[_Attempt] = []
    begun = 0
    try:
        while (now := time.monotonic()) < deadline:
            check()
            due = began + begun * each
            if begun < attempts and now >= due:
                under_way.append(_Attempt(host, port))
                begun += 1
                due = began + begun * each
            _wait_for_any(under_way, min(_SLICE, deadline - now, max(0.0, due - now) or _SLICE))
            for attempt in under_way:
                if attempt.find_banner():
                    under_way.remove(attempt)
                    return attempt.socket
    except OSError as error:
        raise SshError(f"{host}:{port} refuses the connection", detail=str(error)) from error
    finally:
        for attempt in under_way:
            attempt.socket.close()
    raise SilentError(f"{host}:{port} does not answer")


class _Attempt:
    """One connection on its way to the banner."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.socket()
        self._name = f"{host}:{port}"
        self.is_connected = False
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With paramiko's keepalives: a peer that is gone without a word is noticed.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER)
        self.socket.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        try:
            self._note(self.socket.connect_ex((host, port)))
        except BaseException:
            self.socket.close()
            raise

    def find_banner(self) -> bool:
        """Is the banner there? Raises NobodyError, OSError when it will never be."""
        if not self.is_connected:
            if not is_ready(self.socket.fileno(), 0, for_writing=True):
                return False
            self._note(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        if not is_ready(self.socket.fileno(), 0):
            return False
        start = self.socket.recv(4, socket.MSG_PEEK)
        if not start:
            raise OSError("closed before the banner")
        if not b"SSH-".startswith(start):
            raise OSError(f"no SSH server: it says {start!r}")
        return True

    def _note(self, code: int) -> None:
        if code == errno.ECONNREFUSED:
            raise NobodyError(f"{self._name} refuses the connection")
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, os.strerror(code))
        self.is_connected = code == 0


def _wait_for_any(attempts: list[_Attempt], seconds: float) -> None:
    poll = select.poll()
    for attempt in attempts:
        poll.register(
            attempt.socket.fileno(), select.POLLIN if attempt.is_connected else select.POLLOUT
        )
    poll.poll(seconds * 1000)
