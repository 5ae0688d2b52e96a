"""Writes small files that are either there as a whole or not at all."""

import os
from pathlib import Path


def ensure_directory(path: Path, *, mode: int) -> None:
    """Make a directory, and give it this mode. Raises OSError."""
    path.mkdir(mode=mode, exist_ok=True)
    path.chmod(mode)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file; who reads it sees the old content or the new one. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
