"""Image files by content: verified on the way in, read-only, one for all with the same bytes."""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from labctl.drivers import qcow2
from labctl.drivers.command import CommandError, run
from labctl.drivers.failpoint import reach
from labctl.errors import HostError, InvalidError, NotFoundError
from labctl.settings import Settings, make_passable

FILE_MODE = 0o444  # QEMU's user reads it through every overlay, nobody writes
_BLOB = re.compile(r"([0-9a-f]{64})\.qcow2")
_PART = ".part"
_CHUNK = 2**20
_CONVERT_TIMEOUT = timedelta(minutes=60)


class Format(StrEnum):
    """The format of a file to admit."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An image file in the store of files."""

    digest: str  # sha256, 64 lower-case hexadecimal digits
    path: Path
    file_size: int  # bytes
    virtual_size: int  # bytes that the guest sees
    is_new: bool  # False: the same bytes were there


@contextmanager
def admitting(
    settings: Settings,
    source: Path,
    *,
    source_format: Format = Format.QCOW2,
    may_link: bool = False,
) -> Iterator[Blob]:
    """Take over a copy of `source` under its digest; it cannot be deleted while this is open.

    With `may_link` a read-only file of this user is shared instead of copied. Any number of
    processes may admit the same file at once. Raises NotFoundError without such a file,
    InvalidError for an image that cannot be used, HostError when there is no room.
    """
    _require_file(source)
    if source_format is Format.QCOW2:
        qcow2.read_header(source)  # before minutes of copying
    _ensure_directory(settings.blobs_dir)
    with _workplace(settings.blobs_dir) as workplace:
        part = workplace / "image.qcow2"
        with _explaining_a_full_disk(settings.blobs_dir, source):
            digest = _bring(source, part, source_format=source_format, may_link=may_link)
        reach("import:copied")
        # The copy is checked, not the source: nobody else can change it any more.
        header = qcow2.verify(part, name=source)
        with locked(settings, digest):
            path = settings.blobs_dir / f"{digest}.qcow2"
            is_new = not path.exists()
            if is_new:
                part.chmod(FILE_MODE)
                with _explaining_a_full_disk(settings.blobs_dir, source):
                    _sync(part)
                    part.rename(path)
                    _sync(settings.blobs_dir)
            yield Blob(
                digest=digest,
                path=path,
                file_size=path.stat().st_size,
                virtual_size=header.virtual_size,
                is_new=is_new,
            )


@contextmanager
def locked(settings: Settings, digest: str) -> Iterator[None]:
    """Be the only process that adds or deletes this file. The kernel ends it with the process."""
    make_passable(settings.state_dir)
    settings.locks_dir.mkdir(mode=0o700, exist_ok=True)
    file = os.open(
        settings.locks_dir / f"image-{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def ensure_deleted(settings: Settings, digest: str) -> bool:
    """Delete a file that nobody needs; the caller holds `locked`. False: it was gone already."""
    path = settings.blobs_dir / f"{digest}.qcow2"
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync(settings.blobs_dir)
    return True


def find_digests(settings: Settings) -> tuple[str, ...]:
    """The digests of all files that are there."""
    if not settings.blobs_dir.is_dir():
        return ()
    names = (_BLOB.fullmatch(path.name) for path in settings.blobs_dir.iterdir())
    return tuple(sorted(match.group(1) for match in names if match))


def delete_abandoned(settings: Settings) -> tuple[Path, ...]:
    """Delete what imports left that did not live to their end."""
    deleted = []
    for path in sorted(settings.blobs_dir.glob(f"*{_PART}")):
        with suppress(FileNotFoundError, BlockingIOError), _opened(path) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by a living import
            shutil.rmtree(path)
            deleted.append(path)
    return tuple(deleted)


def verify_digest(settings: Settings, digest: str) -> bool:
    """Do the bytes still match the name? Reads the whole file. Raises NotFoundError."""
    path = settings.blobs_dir / f"{digest}.qcow2"
    _require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


@contextmanager
def _workplace(blobs_dir: Path) -> Iterator[Path]:
    """A directory of our own (0700) on the same file system; a lock on it says that we live."""
    while True:
        path = Path(tempfile.mkdtemp(prefix="import-", suffix=_PART, dir=blobs_dir))
        with _opened(path) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if not path.exists():
                continue  # taken for abandoned in the moment before it was locked
            try:
                yield path
            finally:
                shutil.rmtree(path)
            return


def _bring(source: Path, part: Path, *, source_format: Format, may_link: bool) -> str:
    """Make `part` from `source` and tell its digest."""
    if source_format is Format.RAW:
        run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source.absolute(), part],
            timeout=_CONVERT_TIMEOUT,
        )
    elif not (may_link and _is_linked(source, part)):
        digest = hashlib.sha256()  # read once: image files are large
        with source.open("rb") as reader, part.open("xb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        return digest.hexdigest()
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_linked(source: Path, part: Path) -> bool:
    """Make a hard link, if nobody else could change the file through its other name."""
    status = source.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o222:
        return False
    try:
        part.hardlink_to(source)
    except OSError:
        return False  # another file system, or one without links
    return True


def _require_file(path: Path) -> None:
    hint = "name a qcow2 file, or a raw disk with --format raw"
    if not path.exists():
        raise NotFoundError(f"image file {str(path)!r} does not exist", hint=hint)
    if not path.is_file():
        raise InvalidError(f"image file {str(path)!r} is not a regular file", hint=hint)
    if not os.access(path, os.R_OK):
        raise InvalidError(f"image file {str(path)!r} may not be read by this user")


def _ensure_directory(path: Path) -> None:
    try:
        make_passable(path)
    except OSError as error:
        raise HostError(
            f"cannot make the directory {str(path)!r}", detail=str(error), hint="run: labctl doctor"
        ) from error


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _explaining_a_full_disk(directory: Path, source: Path) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        if "No space left" not in error.detail:
            raise
        raise _no_room(directory, source) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise HostError(
                f"cannot store {str(source)!r} in {str(directory)!r}", detail=str(error)
            ) from error
        raise _no_room(directory, source) from error


def _no_room(directory: Path, source: Path) -> HostError:
    free = shutil.disk_usage(directory).free
    return HostError(
        f"no room for image {str(source)!r} in {str(directory)!r}",
        detail=f"{source.stat().st_size >> 20} MiB are needed, {free >> 20} MiB are free;"
        " nothing was added",
        hint="free space, or choose another place with --state-dir",
    )


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
