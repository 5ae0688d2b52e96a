"""One controller for each scale set at a time, on this host."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labctl.errors import HostError
from labctl.settings import Settings, make_passable


@contextmanager
def try_lock(settings: Settings, scale_set: str) -> Iterator[bool]:
    """Yield whether this process now controls `scale_set`; never waits.

    The kernel gives the lock back when the process dies, however it dies.
    """
    path = settings.locks_dir / f"{scale_set}.lock"
    file = _open(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # The lock is what counts; a full disk only keeps others from telling whose it is.
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield True
    finally:
        os.close(file)


def is_held(settings: Settings, scale_set: str) -> bool:
    """Does a process control `scale_set` now?"""
    try:
        file = os.open(settings.locks_dir / f"{scale_set}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # who takes it now finds it free again
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def find_holder(settings: Settings, scale_set: str) -> int | None:
    """The process id that last took the lock, for messages only."""
    try:
        text = (settings.locks_dir / f"{scale_set}.lock").read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def _open(path: Path) -> int:
    try:
        make_passable(path.parent.parent)  # the state directory
        path.parent.mkdir(exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"cannot write the lock file {str(path)!r}",
            detail=str(error),
            hint="run: labctl doctor",
        ) from error
