"""Runs a program of the user's on this host: bounded output and time, never beside itself."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.errors import LabError

KEPT = 64 * 1024  # bytes of output, the last ones
_MOST = 8 * 2**20  # bytes that the output may grow to in between
_LOOK = 0.1  # seconds between two looks
_GRACE = timedelta(seconds=5)  # from SIGTERM to SIGKILL


class ProgramError(LabError):
    """The program could not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramResult:
    """How a program ended."""

    exit_code: int | None  # None: it was ended at its deadline
    output: str  # the last 64 KiB of stdout and stderr together


def find_program(name: str) -> str | None:
    """Where the program is: its absolute path, if it can be run."""
    return shutil.which(name)


def run_program(
    command: Sequence[str],
    *,
    stdin: str,
    variables: Mapping[str, str],
    timeout: timedelta,
    check: Callable[[], None],
    lock: Path,
) -> ProgramResult:
    """Run it to its end and return how it ended; no shell, and nothing of our environment but PATH.

    Whatever still runs of an earlier call with the same `lock`, whose caller was killed, is waited
    for first. At the deadline, and when `check` raises, it is ended with all that it has started.
    Raises ProgramError, and what `check` raises.
    """
    end = time.monotonic() + timeout.total_seconds()
    program = find_program(command[0])
    if program is None:
        raise ProgramError(f"program {command[0]!r} is not there, or cannot be run")
    with _held(lock, end, check) as held, tempfile.TemporaryFile() as said:
        if held is None:
            raise ProgramError(f"an earlier run of {command[0]!r} has not ended yet")
        with tempfile.TemporaryFile() as told:
            told.write(stdin.encode())
            told.seek(0)
            # Appending, so that the file may be cut while the program writes.
            fcntl.fcntl(said, fcntl.F_SETFL, os.O_APPEND)
            try:
                process = subprocess.Popen(
                    [program, *command[1:]],
                    stdin=told,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=_environment() | dict(variables),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(held,),
                )
            except OSError as error:
                raise ProgramError(
                    f"program {command[0]!r} cannot be run: {error.strerror}"
                ) from error
        try:
            code = _wait(process, said.fileno(), end, check)
        finally:
            _end_group(process)
            fcntl.flock(held, fcntl.LOCK_UN)  # also for what it has left behind
        return ProgramResult(exit_code=code, output=_tail(said.fileno()))


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }


@contextmanager
def _held(path: Path, end: float, check: Callable[[], None]) -> Iterator[int | None]:
    """The descriptor of the lock; None when its holder has not let go in time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    pause = threading.Event()
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                check()
                if time.monotonic() >= end:
                    yield None
                    return
                pause.wait(_LOOK)
            else:
                yield descriptor
                return
    finally:
        os.close(descriptor)


def _wait(
    process: subprocess.Popen[bytes], output: int, end: float, check: Callable[[], None]
) -> int | None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK)
        check()
        if os.fstat(output).st_size > _MOST:
            kept = _tail(output).encode()
            os.ftruncate(output, 0)
            os.write(output, kept)
        if time.monotonic() >= end:
            return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End it with what it has started in its group; what has left the group goes on."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE.total_seconds())
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, KEPT, max(0, size - KEPT)).decode(errors="replace")
