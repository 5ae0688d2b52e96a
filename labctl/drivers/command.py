"""The one door to other programs: lists of arguments, a deadline, an error that can be replayed."""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.errors import HostError, LabError

_TAIL = 2000  # characters of output that an error shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a program ended."""

    exit_code: int
    stdout: str
    stderr: str


class CommandError(LabError):
    """A program ended with an exit code other than 0, or not in time."""


def run(
    arguments: Sequence[str | Path],
    *,
    timeout: timedelta,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end; kill it at the deadline.

    Raises HostError when the program is not installed, CommandError for a missed deadline and,
    unless `check` is false, for any exit code but 0.
    """
    words = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout.total_seconds(),
            env=None if environment is None else dict(environment),
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(
            f"program {words[0]!r} is not installed", hint="run: labctl doctor --fix"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{words[0]} did not end within {timeout.total_seconds():.0f} s",
            detail=f"command: {shlex.join(words)}",
        ) from error
    if check and done.returncode != 0:
        raise CommandError(
            f"{words[0]} failed with exit code {done.returncode}",
            detail=f"{(done.stderr or done.stdout).strip()[-_TAIL:]}\ncommand: {shlex.join(words)}",
        )
    return Completed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def start_detached(arguments: Sequence[str | Path]) -> None:
    """Start a program that outlives this one; it is reaped where this one lives on."""
    words = [str(argument) for argument in arguments]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, name=f"reap {words[0]}", daemon=True).start()


def run_in_group(
    arguments: Sequence[str | Path],
    *,
    output: Path,
    timeout: timedelta,
    environment: Mapping[str, str],
    directory: Path,
    keep_open: Sequence[int] = (),
) -> int | None:
    """Run a program with its output (stdout and stderr) in a file; return its exit code.

    None: at the deadline it was killed, with all that it had started. `keep_open` are descriptors
    that it and its children hold as long as they live.
    """
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            pass_fds=keep_open,
        )
        try:
            return process.wait(timeout.total_seconds())
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
