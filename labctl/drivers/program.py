"""Runs a program of the user's on this host: bounded output and time, never beside itself."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.drivers.program_lock import GRACE, end_group, held, write_run
from labctl.errors import LabError

KEPT = 64 * 1024  # bytes of output, the last ones
_MOST = 8 * 2**20  # bytes that the output may grow to in between
_LOOK = 0.1  # seconds between two looks
_FIRST = 256  # bytes; Linux itself reads no more of a first line
_INTERPRETER = "an interpreter that is there, such as #!/bin/sh"


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


def find_program_fault(name: str) -> str | None:
    """Why this host cannot run a program; None: nothing speaks against it."""
    path = find_program(name)
    if path is None:
        return f"program {name!r} is not there, or cannot be run"
    reason = _find_first_line_fault(path)
    return None if reason is None else f"program {name!r} cannot be run: {reason}"


def _find_first_line_fault(path: str) -> str | None:
    """Linux says of such scripts only "No such file" or "Exec format error"."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(_FIRST)
    except OSError:
        return None  # what may be run need not be readable
    if not begin.startswith(b"#!"):
        # What is not text may be of any kind that this host knows.
        return None if b"\0" in begin else "its first line must be '#!' and " + _INTERPRETER
    line = begin.partition(b"\n")[0][2:].strip(b" \t")
    words = line.split()
    interpreter = os.fsdecode(words[0]) if words else ""
    if line.endswith(b"\r") and (len(words) < 2 or interpreter.endswith("/env")):
        named = words[-1].decode(errors="replace") if words else ""
        return (
            "its lines end as on Windows (CRLF), and no interpreter is named "
            f"{named + chr(13)!r}; save it with plain line ends"
        )
    if not Path("/", interpreter).is_file():
        return (
            f"its first line names the interpreter {interpreter!r}, which is not there; "
            f"it must be '#!' and " + _INTERPRETER
        )
    return None


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
    for first, for no longer than `timeout`, and ended at its own deadline. At the deadline, and
    when `check` raises, the program is ended with what it has started in its process group.
    Raises ProgramError, StillRunningError, and what `check` raises.
    """
    program = find_program(command[0])
    if program is None:
        raise ProgramError(f"program {command[0]!r} is not there, or cannot be run")
    latest = time.monotonic() + timeout.total_seconds()
    with (
        held(lock, command[0], end=latest, check=check) as locked,
        tempfile.TemporaryFile() as said,
    ):
        end = time.monotonic() + timeout.total_seconds()
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
                    pass_fds=(locked,),
                )
            except OSError as error:
                raise _unusable(command[0], program, error) from error
        try:
            write_run(locked, process.pid, end)
            code = _wait(process, said.fileno(), end, check)
        finally:
            _end_group(process)
        return ProgramResult(exit_code=code, output=_tail(said.fileno()))


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }


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
        end_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    end_group(process.pid, signal.SIGKILL)
    process.wait()


def _unusable(name: str, path: str, error: OSError) -> ProgramError:
    """Say more than Linux does of a script that it cannot begin."""
    fault = _find_first_line_fault(path)
    if fault is None and error.errno == errno.ENOEXEC:
        fault = "it is no program for this kind of machine"
    return ProgramError(f"program {name!r} cannot be run: {fault or error.strerror}")


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, KEPT, max(0, size - KEPT)).decode(errors="replace")
