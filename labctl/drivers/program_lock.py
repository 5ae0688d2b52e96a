"""Keeps a program of the user's from running beside itself, also when its starter was killed."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl.errors import LabError

GRACE = 5.0  # seconds from SIGTERM to SIGKILL
_LOOK = 0.1  # seconds between two looks
_RECORD_LIMIT = 4096  # bytes


class StillRunningError(LabError):
    """An earlier run has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the lock file tells about the run that holds it."""

    group: int  # of processes; its first process has the same number
    started: int  # that first process, in clock ticks since boot: tells it from a later one
    deadline: float  # on the monotonic clock, which all processes of this boot share


@contextmanager
def held(path: Path, command: str, *, end: float, check: Callable[[], None]) -> Iterator[int]:
    """Hold the lock; gives its descriptor, which whatever must not run twice inherits.

    A run whose starter was killed keeps it. That one is waited for, and ended at its deadline.
    Raises StillRunningError at `end`, and what `check` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = _open(path)
    orphan = _Orphan()
    pause = threading.Event()
    try:
        while not _take(descriptor):
            check()
            now = time.monotonic()
            if orphan.end(descriptor, now):
                descriptor = _renew(descriptor, path)
                continue
            if now >= end:
                raise _still_running(descriptor, path, command, now)
            pause.wait(_LOOK)
        os.ftruncate(descriptor, 0)  # what an earlier run wrote
        try:
            yield descriptor
        finally:
            os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for what the run has left behind
    finally:
        os.close(descriptor)


def write_run(descriptor: int, group: int, deadline: float) -> None:
    """Write down who runs, for who comes after a starter that was killed."""
    run = Run(group=group, started=_find_start(group) or 0, deadline=deadline)
    os.pwrite(descriptor, json.dumps(asdict(run)).encode(), 0)


def end_group(group: int, number: signal.Signals) -> None:
    """Send a signal to what is left of a group; nothing left is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Orphan:
    """Ends the run that holds a lock for longer than it was given."""

    def __init__(self) -> None:
        self._asked_at: float | None = None

    def end(self, descriptor: int, now: float) -> bool:
        """Bring its end nearer; True: all of it is gone, and what holds the lock has left it."""
        run = _read_run(descriptor)
        if run is None or now < run.deadline:
            return False
        if not _is_there(run, descriptor):
            return True
        if self._asked_at is None:
            self._asked_at = now
            end_group(run.group, signal.SIGTERM)
        elif now >= self._asked_at + GRACE:
            end_group(run.group, signal.SIGKILL)
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _renew(descriptor: int, path: Path) -> int:
    """Open a lock file that nobody holds in the place of this one."""
    with suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            path.unlink()
    renewed = _open(path)
    os.close(descriptor)
    return renewed


def _read_run(descriptor: int) -> Run | None:
    """None: nothing is written yet, or not by us."""
    try:
        return Run(**json.loads(os.pread(descriptor, _RECORD_LIMIT, 0)))
    except (ValueError, TypeError):
        return None


def _is_there(run: Run, descriptor: int) -> bool:
    """Is anything left of it? A number that another process has by now does not count."""
    start = _find_start(run.group)
    if start is not None:
        return start == run.started
    # Its first process has ended: the group is that of the run if one in it holds the lock.
    return any(_find_group(pid) == run.group for pid in _find_holders(descriptor))


def _find_holders(descriptor: int) -> list[int]:
    """The other processes that have the lock file open, as far as they can be looked into."""
    lock = os.fstat(descriptor)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                if os.path.samestat(link.stat(), lock):
                    found.append(int(process.name))
                    break
    return sorted(found)


def _find_group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _find_start(pid: int) -> int | None:
    """When the process began; None: it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is a name in brackets, with whatever characters; these are those after it.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in {b"Z", b"X"} else int(fields[18])


def _still_running(descriptor: int, path: Path, command: str, now: float) -> StillRunningError:
    run = _read_run(descriptor)
    if run is None:
        pids = ", ".join(str(pid) for pid in _find_holders(descriptor)) or "unknown"
        return StillRunningError(
            f"an earlier run of {command!r} has not ended yet (processes {pids})",
            hint=f"see who holds it: fuser -v {path}",
        )
    left = run.deadline - now
    when = f"in {left:.0f} s" if left > 0 else "now"
    return StillRunningError(
        f"an earlier run of {command!r} has not ended yet (process {run.group}); "
        f"it will be ended {when}",
        hint=f"to end it at once: kill -- -{run.group}",
    )
