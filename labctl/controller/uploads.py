"""Files of clients that are too large for a request's body in memory: disk images."""

import hashlib
import os
import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from labctl.errors import HostError, InvalidError, NotFoundError, RefusedError
from labctl.settings import Settings, make_passable

DEFAULT_LIMIT = 64 * 2**30  # bytes
LIMIT_VARIABLE = "LABCTL_UPLOAD_LIMIT"  # bytes
_RESERVE = 2**30  # bytes that stay free for what runs
_KEPT = timedelta(days=1)
_PART = ".part"


class Upload:
    """One file that comes in. Close it whatever happens; without `keep` it is gone then."""

    def __init__(self, settings: Settings, size: int | None) -> None:
        """`size` as announced; None: unknown. Raises RefusedError for too large, HostError."""
        self.id = str(uuid4())
        self.size = 0
        self._folder = settings.api_dir / "uploads"
        self._limit = read_limit()
        self._sum = hashlib.sha256()
        try:
            make_passable(settings.state_dir)
            settings.api_dir.mkdir(mode=0o700, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._require_room(size or 0)
            self._path = self._folder / f"{self.id}{_PART}"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
        except OSError as error:
            raise _unwritable(error) from error

    @property
    def sha256(self) -> str:
        """Of what has come so far."""
        return self._sum.hexdigest()

    def write(self, content: bytes) -> None:
        """Raises RefusedError where it gets too large, HostError where it cannot be written."""
        self.size += len(content)
        self._require_room(len(content))
        self._sum.update(content)
        try:
            self._stream.write(content)
        except OSError as error:
            raise _unwritable(error) from error

    def keep(self) -> None:
        """It is complete."""
        try:
            self._stream.flush()
            self._path.rename(self._folder / self.id)
        except OSError as error:
            raise _unwritable(error) from error

    def close(self) -> None:
        """Remove it, unless it was kept."""
        with suppress(OSError):
            self._stream.close()
        self._path.unlink(missing_ok=True)

    def _require_room(self, more: int) -> None:
        if max(self.size, more) > self._limit:
            raise RefusedError(
                f"the file has more than {self._limit} bytes",
                hint=f"{LIMIT_VARIABLE} of the server's environment sets another limit",
            )
        free = shutil.disk_usage(self._folder).free
        if more > free - _RESERVE:
            raise HostError(
                f"no room for the file: {free >> 20} MiB are free on the server's host",
                detail=f"{_RESERVE >> 20} MiB must stay free",
                hint="free space there, or choose another state directory",
            )


def find_upload(settings: Settings, identifier: str) -> Path:
    """A complete upload. Raises NotFoundError."""
    try:
        name = str(UUID(identifier))
    except ValueError:
        name = ""
    path = settings.api_dir / "uploads" / name
    if not name or not path.is_file():
        raise NotFoundError(
            f"there is no upload {identifier[:60]!r}",
            hint="uploads are kept for a day; send the file again",
        )
    return path


def remove_old_uploads(settings: Settings, *, now: datetime) -> None:
    """Remove what nobody has used within a day."""
    folder = settings.api_dir / "uploads"
    if not folder.is_dir():
        return
    oldest = (now - _KEPT).timestamp()
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def remove_parts(settings: Settings) -> None:
    """Remove what had not come in completely when a server was killed."""
    for path in (settings.api_dir / "uploads").glob(f"*{_PART}"):
        with suppress(OSError):
            path.unlink()


def read_limit() -> int:
    """The largest upload. Raises InvalidError for a variable that is no number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()):
        raise InvalidError(f"{LIMIT_VARIABLE} is {text!r}, which is no number of bytes")
    return int(text)


def _unwritable(error: OSError) -> HostError:
    return HostError(
        "the file cannot be written on the server's host",
        detail=error.strerror or str(error),
        hint="free space there: labctl doctor",
    )
