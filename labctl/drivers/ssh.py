"""The one door to SSH: pinned host keys, commands that cannot hang, bounded output.

paramiko runs one thread for each connection and is not trusted to come back: every wait has a
deadline, and a watchdog closes the socket of a connection that outlives its command's.
"""

import base64
import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from labctl.drivers.ssh_exchange import Check, Exchange, OnOutput
from labctl.drivers.ssh_socket import NobodyError, Pacer, SilentError, open_socket
from labctl.drivers.ssh_socket import SshError as SshError  # noqa: PLC0414 - for importers
from labctl.errors import ExitCode, HostError, LabError, TimedOutError

if TYPE_CHECKING:
    import paramiko

_SLICE = 0.2  # seconds between two looks at whether to give up
_HANDSHAKE = timedelta(seconds=60)  # key exchange and login of a busy emulated guest
_GRACE = timedelta(seconds=5)  # from a command's deadline to the watchdog
_KEEPALIVE = 15  # seconds

# Every failure here becomes a LabError; paramiko would print a traceback for each, too.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class HostKeyError(SshError):
    """Somebody else answers, or the instance lost its key. Tried again only with Windows."""


class LoginRefusedError(SshError):
    """The right machine answers and does not accept the controller's key."""


class CancelledError(LabError):
    """Somebody does not want the result any more."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """Where an instance listens, who it must prove to be, and who we are."""

    host: str
    port: int
    host_key_public: str  # "ssh-ed25519 AAAA..."
    key_path: Path  # the controller's private key
    user: str = "labctl"
    # Scripts are PowerShell, and the instance's host key comes only after sshd is up: until then it
    # shows one that the image has made, to which labctl does not log in.
    is_windows: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command in the guest ended."""

    exit_code: int | None  # None: timed out, or killed by a signal
    stdout: str
    stderr: str
    timed_out: bool = False

    @property
    def has_succeeded(self) -> bool:
        """Did it end with exit code 0?"""
        return self.exit_code == 0


def no_check() -> None:
    """Never give up before the deadline."""


def cancel_check(cancel: threading.Event | None) -> Check:
    """Give up with CancelledError once `cancel` is set."""

    def check() -> None:
        if cancel is not None and cancel.is_set():
            raise CancelledError("cancelled")

    return check


class SshConnection:
    """An authenticated connection. One command at a time for each thread; threads may share it."""

    def __init__(self, transport: "paramiko.Transport", target: SshTarget) -> None:
        self._transport = transport
        self.target = target

    @property
    def is_open(self) -> bool:
        """Is it usable, as far as is known without asking?"""
        return self._transport.is_active()

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: timedelta,
        stdin: bytes = b"",
        on_output: OnOutput | None = None,
        check: Check = no_check,
    ) -> CommandResult:
        """Run a command to its end; at the deadline give it up and say so in the result.

        The command in the guest is not killed by a deadline or a lost connection. `on_output`
        gets stdout as it comes. Raises SshError when the connection is lost, and what `check`
        raises.
        """
        import paramiko

        deadline = time.monotonic() + timeout.total_seconds()
        watchdog = threading.Timer((timeout + _GRACE).total_seconds(), self._abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            channel = self._transport.open_session(timeout=timeout.total_seconds())
            try:
                channel.exec_command(shlex.join(command))
                exchange = Exchange(channel, stdin, on_output)
                timed_out = not exchange.finish(deadline, check)
            finally:
                channel.close()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise SshError(
                f"the SSH connection to {self.target.name} was lost",
                detail=str(error) or type(error).__name__,
            ) from error
        finally:
            watchdog.cancel()
        exit_code = None if timed_out or channel.exit_status < 0 else channel.exit_status
        if exit_code is None and not timed_out:
            # Killed by a signal, or the connection died. paramiko ends the channels of a dying
            # connection before it says that it is dead.
            self._transport.join(1)
            if not self.is_open:
                raise SshError(f"the SSH connection to {self.target.name} was lost")
        return CommandResult(
            exit_code=exit_code,
            stdout=exchange.stdout.text,
            stderr=exchange.stderr.text,
            timed_out=timed_out,
        )

    def close(self) -> None:
        """Hang up; again is fine."""
        self._abort()
        self._transport.close()

    def __enter__(self) -> Self:
        """Close it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def _abort(self) -> None:
        # The socket first: paramiko's own close waits for its thread, which may wait for the peer.
        with contextlib.suppress(OSError):
            self._transport.sock.shutdown(socket.SHUT_RDWR)


def connect(
    target: SshTarget, *, timeout: timedelta = timedelta(seconds=30), check: Check = no_check
) -> SshConnection:
    """Connect once.

    Raises SshError when nobody answers as an SSH server in time, HostKeyError, LoginRefusedError.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    return _log_in(open_socket(target.host, target.port, deadline, check), target, deadline, check)


def wait_for_ssh(
    target: SshTarget,
    *,
    deadline: timedelta,
    cancel: threading.Event | None = None,
    check: Check = no_check,
) -> SshConnection:
    """Connect as soon as the instance lets us in.

    Raises TimedOutError at the deadline, HostKeyError at once, CancelledError when `cancel` is set.
    """
    import paramiko  # noqa: F401 - it takes a while, in which the instance boots

    is_cancelled = cancel_check(cancel)

    def check_both() -> None:
        is_cancelled()
        check()

    start = time.monotonic()
    end = start + deadline.total_seconds()
    pacer = Pacer(start)
    last: LabError | None = None
    while (now := time.monotonic()) < end:
        check_both()
        try:
            opened = open_socket(
                target.host,
                target.port,
                min(end, now + pacer.patience(now)),
                check_both,
                attempts=pacer.attempts,
            )
        except SilentError as error:
            last = error
            pacer.note_silence()
            continue
        except NobodyError as error:
            last = error
            pacer.is_answering = not target.host.startswith("127.")
            _pause(0.1, end, check_both)
            continue
        except SshError as error:
            last = error
            pacer.is_answering = True
            _pause(pacer.next_pause(), end, check_both)
            continue
        try:
            return _log_in(
                opened, target, min(end, time.monotonic() + _HANDSHAKE.total_seconds()), check_both
            )
        except HostKeyError as error:
            if not target.is_windows:
                raise
            last = error
            _pause(1.0, end, check_both)
        except SshError as error:
            # Early in the boot, systemd lets nobody in yet ("System is booting up").
            last = error
            pacer.is_answering = True
            _pause(1.0, end, check_both)
    raise TimedOutError(
        f"no SSH login to {target.name} within {deadline.total_seconds():.0f} s",
        detail=last.brief if last is not None else "",
        hint="look at the serial console: labctl instance logs",
    ) from last


def _pause(seconds: float, end: float, check: Check) -> None:
    until = min(end, time.monotonic() + seconds)
    tick = threading.Event()
    while (left := until - time.monotonic()) > 0:
        check()
        tick.wait(min(_SLICE, left))


def _log_in(
    opened: socket.socket, target: SshTarget, deadline: float, check: Check
) -> SshConnection:
    import paramiko

    opened.setblocking(True)  # noqa: FBT003 - the socket module's own signature
    transport = paramiko.Transport(opened)
    connection = SshConnection(transport, target)
    try:
        _prefer_cheap_algorithms(transport)
        _await(transport, transport.start_client, target, deadline, check)
        _check_host_key(transport, target)
        key = _load_key(target.key_path)

        def authenticate(event: threading.Event) -> None:
            transport.auth_publickey(target.user, key, event)

        _await(transport, authenticate, target, deadline, check)
        _check_login(transport, target)
        transport.set_keepalive(_KEEPALIVE)
    except (paramiko.SSHException, OSError, EOFError) as error:
        connection.close()
        raise SshError(f"SSH to {target.name} failed", detail=str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prefer_cheap_algorithms(transport: "paramiko.Transport") -> None:
    """Choose what costs an emulated processor least; the pinned key is ed25519 in any case."""
    options = transport.get_security_options()
    options.key_types = ("ssh-ed25519",)
    cheap = "curve25519-sha256@libssh.org"
    options.kex = (cheap, *(name for name in options.kex if name != cheap))


def _await(
    transport: "paramiko.Transport",
    begin: Callable[[threading.Event], None],
    target: SshTarget,
    deadline: float,
    check: Check,
) -> None:
    """Start a step of paramiko that sets an event, and wait for it in slices."""
    import paramiko

    event = threading.Event()
    begin(event)
    while not event.wait(_SLICE):
        check()
        if time.monotonic() > deadline:
            raise SshError(f"{target.name} did not finish the SSH handshake in time")
    error = transport.get_exception()
    # A refused key is an exception, too; is_authenticated tells it better.
    if error is not None and not isinstance(error, paramiko.AuthenticationException):
        raise error
    if error is None and not transport.is_active():
        raise SshError(f"{target.name} hung up during the handshake")


def _check_host_key(transport: "paramiko.Transport", target: SshTarget) -> None:
    shown = transport.get_remote_server_key()
    expected = base64.b64decode(target.host_key_public.split()[1])
    if shown.asbytes() != expected:
        raise HostKeyError(
            f"{target.host}:{target.port} shows another SSH host key than the instance's own",
            detail=f"shown: {shown.get_name()} {shown.get_base64()}\n"
            f"expected: {target.host_key_public}",
            hint="another machine answers on this address, or custom data replaced the key "
            "(ssh_keys in cloud-config)",
        )


def _check_login(transport: "paramiko.Transport", target: SshTarget) -> None:
    if not transport.is_authenticated():
        raise LoginRefusedError(
            f"{target.name} does not accept the controller's key",
            hint="did the boot script of the seed run? See the serial console.",
        )


def _load_key(path: Path) -> "paramiko.PKey":
    import paramiko

    try:
        return paramiko.Ed25519Key(filename=str(path))
    except (OSError, paramiko.SSHException) as error:
        raise HostError(
            f"the controller's SSH key {str(path)!r} cannot be used", detail=str(error)
        ) from error
