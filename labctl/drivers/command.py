"""The one door to other programs: lists of arguments, a deadline, an error that can be replayed."""

import shlex
import subprocess
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
