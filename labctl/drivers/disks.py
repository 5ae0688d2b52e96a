"""Disk files: OS generations may be deleted; a data disk only when a person names it."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.drivers.command import CommandError, Completed, run
from labctl.errors import HostError, InstanceHostError, InvalidError, RefusedError
from labctl.settings import make_passable

FILE_MODE = 0o600  # libvirt gives a disk to QEMU's user while the domain runs

_OS_FILE = re.compile(
    r"(?P<instance>[a-z][a-z0-9-]*_\d+)\.g(?P<generation>[1-9]\d*)\.(?:qcow2|iso|ign|nvram)(?:\.part)?"
)
_TIMEOUT = timedelta(minutes=2)
_MIB = 2**20
_NEW_FILE = 1 * _MIB  # room that an empty qcow2 file takes, rounded up


@dataclass(frozen=True, slots=True, kw_only=True)
class OsGenerationFiles:
    """The files of one OS generation of one instance; never a data disk.

    Made by `os_generation_files`; any other file name is refused.
    """

    overlay: Path
    seed: Path
    ignition: Path | None = None  # images with Ignition only
    nvram: Path | None = None  # images with UEFI firmware only

    def __post_init__(self) -> None:
        stems = {path.name.rsplit(".", 1)[0] for path in self.paths}
        same_place = len({path.parent for path in self.paths}) == 1 and len(stems) == 1
        if not same_place or not all(_OS_FILE.fullmatch(path.name) for path in self.paths):
            raise RefusedError(
                f"{', '.join(repr(str(path)) for path in self.paths)} are not the files of one"
                " OS generation",
                hint="OS generations are named <instance>.g<number>.qcow2 and .iso",
            )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, whether they exist or not."""
        every = (self.overlay, self.seed, self.ignition, self.nvram)
        return tuple(path for path in every if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDisk:
    """A data disk of an instance."""

    path: Path
    name: str
    serial: str
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDeletionConsent:
    """The data disks that a person asked to delete, by file name. Only the command line makes one.

    DataDeletionConsent(file_names=frozenset({"web_3.data-db.qcow2"}))
    """

    file_names: frozenset[str]


def os_generation_files(
    set_dir: Path, instance: str, generation: int, *, has_nvram: bool = False
) -> OsGenerationFiles:
    """Name the files of generation `generation` of `instance` ("web_3")."""
    stem = f"{instance}.g{generation}"
    return OsGenerationFiles(
        overlay=set_dir / f"{stem}.qcow2",
        seed=set_dir / f"{stem}.iso",
        ignition=set_dir / f"{stem}.ign",
        nvram=set_dir / f"{stem}.nvram" if has_nvram else None,
    )


def data_disk_path(set_dir: Path, instance: str, disk: str) -> Path:
    """Where the data disk `disk` of `instance` lives."""
    return set_dir / f"{instance}.data-{disk}.qcow2"


def ensure_directory(path: Path) -> None:
    """Make the directory and its missing parents. Raises HostError."""
    try:
        make_passable(path)
    except OSError as error:
        raise file_error(path, error, needed=0) from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file with secrets: whole or not at all, for its owner alone. Raises HostError."""
    ensure_directory(path.parent)
    part = _part_of(path)
    try:
        part.unlink(missing_ok=True)
        # A host key or a token may be inside: private from the first byte.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise file_error(path, error, needed=len(content)) from error


def ensure_overlay(files: OsGenerationFiles, base: Path, size: int | None) -> bool:
    """Make the OS disk on `base`; `size` in bytes, None for the base's. False: it was there.

    Raises RefusedError when a disk of that name stands on another base, InvalidError when `size`
    is less than the base's, InstanceHostError when the base is missing, HostError when the file
    system is full.
    """
    if not base.exists():
        raise InstanceHostError(  # instances of other images are not concerned
            f"image file {str(base)!r} is missing",
            hint="run: labctl doctor; then import the image again",
        )
    base_size = _virtual_size(base)
    wanted = base_size if size is None else size
    if wanted < base_size:
        raise InvalidError(
            f"OS disk of {wanted} bytes is smaller than its image of {base_size} bytes",
            hint="raise osDisk.size or leave it out",
        )
    if files.overlay.exists():
        _verify_overlay(files.overlay, base, wanted)
        return False
    ensure_directory(files.overlay.parent)
    part = _part_of(files.overlay)
    arguments: list[str | Path] = [
        "-b",
        base,
        "-F",
        "qcow2",
        "-o",
        "lazy_refcounts=on",
        part,
        str(wanted),
    ]
    _create(part, arguments)
    part.replace(files.overlay)
    sync_directory(files.overlay.parent)
    return True


def discard_os_generation(files: OsGenerationFiles) -> bool:
    """Delete the files of an OS generation. False: there were none.

    Raises RefusedError while a running domain has the disk open.
    """
    if not isinstance(files, OsGenerationFiles):  # a caller without type checks
        raise TypeError(f"{files!r} is not OsGenerationFiles; nothing was deleted")
    _refuse_open_disk(files.overlay)
    found = False
    for path in files.paths:
        for name in (path, _part_of(path)):
            if name.exists() or name.is_symlink():
                found = True
                _unlink(name)
    if found:
        sync_directory(files.overlay.parent)
    return found


def list_orphans(
    set_dir: Path, known: Iterable[OsGenerationFiles]
) -> tuple[OsGenerationFiles, ...]:
    """The OS generations in `set_dir` that are not `known`, by name; data disks are not seen."""
    kept = {path.name for files in known for path in files.paths}
    kept_stems = {name.rsplit(".", 1)[0] for name in kept}
    found: dict[tuple[str, int], OsGenerationFiles] = {}
    names = sorted(path.name for path in set_dir.iterdir()) if set_dir.is_dir() else []
    for name in names:
        match = _OS_FILE.fullmatch(name)
        if match is None:
            continue
        instance, generation = match["instance"], int(match["generation"])
        if f"{instance}.g{generation}" in kept_stems:
            continue
        has_nvram = (set_dir / f"{instance}.g{generation}.nvram").exists()
        found[instance, generation] = os_generation_files(
            set_dir, instance, generation, has_nvram=has_nvram
        )
    return tuple(found.values())


def ensure_data_disk(disk: DataDisk) -> bool:
    """Make an empty data disk where nothing is. False: it was there, and was not touched.

    Raises RefusedError when the disk has another size.
    """
    if disk.path.exists():
        size = _virtual_size(disk.path)
        if size != disk.size:
            raise RefusedError(
                f"data disk {str(disk.path)!r} has {size} bytes, the spec says {disk.size}",
                detail="labctl does not resize data disks; nothing was changed",
                hint=f"set the size of data disk {disk.name!r} back, or give a new disk a new name",
            )
        _unlink(_part_of(disk.path))  # of a controller that died in between: the same file twice
        return False
    ensure_directory(disk.path.parent)
    part = _part_of(disk.path)
    _create(part, [part, str(disk.size)])
    try:
        # Unlike a rename, a link never takes the place of a disk that came up meanwhile.
        os.link(part, disk.path)
    except FileExistsError:
        _unlink(part)
        return ensure_data_disk(disk)
    except OSError as error:
        raise file_error(disk.path, error, needed=_NEW_FILE) from error
    _unlink(part)
    sync_directory(disk.path.parent)
    return True


def destroy_data_disk(disk: DataDisk, consent: DataDeletionConsent) -> bool:
    """Delete a data disk that `consent` names. False: it was not there."""
    if disk.path.name not in consent.file_names:
        raise RefusedError(
            f"data disk {disk.path.name!r} is kept: nobody asked to delete it",
            detail=f"asked to delete: {', '.join(sorted(consent.file_names)) or 'nothing'}",
            hint="name the disk to delete it",
        )
    _unlink(_part_of(disk.path))
    if not disk.path.exists():
        return False
    _refuse_open_disk(disk.path)
    _unlink(disk.path)
    sync_directory(disk.path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make renames and deletions in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_error(path: Path, error: OSError, *, needed: int) -> HostError:
    """Say why `path` cannot be written; `needed` is in bytes."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path, needed=needed)
    return HostError(
        f"cannot write {str(path)!r}",
        detail=error.strerror or str(error),
        hint="check owner and permissions, or run: labctl doctor",
    )


def _create(part: Path, arguments: list[str | Path]) -> None:
    _unlink(part)  # what a controller that died left behind
    try:
        _qemu_img("create", "-q", "-f", "qcow2", *arguments)
        part.chmod(FILE_MODE)
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except CommandError as error:
        _unlink(part)
        if os.strerror(errno.ENOSPC) in error.detail:
            raise _full(part, needed=_NEW_FILE) from error
        raise
    except OSError as error:
        _unlink(part)
        raise file_error(part, error, needed=_NEW_FILE) from error


def _verify_overlay(overlay: Path, base: Path, size: int) -> None:
    info = _info(overlay)
    if info != _Info(virtual_size=size, backing_file=str(base)):
        raise RefusedError(
            f"OS disk {str(overlay)!r} is not the one to make",
            detail=f"it has {info.virtual_size} bytes on {info.backing_file!r},"
            f" wanted: {size} bytes on {str(base)!r}",
            hint="nothing was changed; delete the file if no instance needs it",
        )


def _virtual_size(path: Path) -> int:
    return _info(path).virtual_size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Info:
    virtual_size: int  # bytes
    backing_file: str | None


def _info(path: Path) -> _Info:
    # -U: also while a running domain holds the lock.
    done = _qemu_img("info", "-U", "-f", "qcow2", "--output=json", path)
    info = json.loads(done.stdout)
    return _Info(virtual_size=info["virtual-size"], backing_file=info.get("backing-filename"))


def _refuse_open_disk(path: Path) -> None:
    if not path.exists():
        return
    done = _qemu_img("info", "-f", "qcow2", "--output=json", path, check=False)
    # A disk that we may not read is QEMU's own user's: its domain runs.
    if done.exit_code != 0 and ("lock" in done.stderr or "Permission denied" in done.stderr):
        raise RefusedError(
            f"disk {str(path)!r} is in use, and was not deleted",
            detail=done.stderr.strip(),
            hint="stop the instance, or end the program that has it open; then run it again",
        )


def _qemu_img(*arguments: str | Path, check: bool = True) -> Completed:
    # The C locale keeps the messages that are compared here.
    environment = {**os.environ, "LC_ALL": "C"}
    return run(["qemu-img", *arguments], timeout=_TIMEOUT, environment=environment, check=check)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise file_error(path, error, needed=0) from error


def _full(path: Path, *, needed: int) -> HostError:
    free = shutil.disk_usage(path.parent).free
    return HostError(
        f"no space left for {str(path)!r}",
        detail=f"free: {free // 1024} KiB, needed: {max(needed // 1024, 1)} KiB",
        hint="free space on that file system, or choose another with --state-dir",
    )
