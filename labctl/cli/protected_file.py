"""Reads protected settings from a file that nobody else may read."""

import os
import stat
from pathlib import Path

from labctl.errors import InvalidError
from labctl.model.extension_rules import SETTINGS_LIMIT
from labctl.model.yaml_text import Value, parse_yaml


def read_protected(path: Path) -> dict[str, Value]:
    """Read a YAML or JSON mapping. Raises InvalidError, which never repeats what is in the file."""
    return parse_protected(load_protected(path))


def load_protected(path: Path) -> bytes:
    """The content of a file that nobody else may read. Raises InvalidError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidError(f"cannot be read: {error.strerror}") from error
    found = os.fstat(descriptor)  # of what was opened, not of what has the name now
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)  # Python makes no stream of a directory
        raise InvalidError("is no regular file")
    with os.fdopen(descriptor, "rb") as stream:
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise InvalidError(f"may be used by others (mode {mode:04o}); run: chmod 600 {path}")
        return stream.read(SETTINGS_LIMIT + 1)


def parse_protected(content: bytes) -> dict[str, Value]:
    """The mapping in such a file. Raises InvalidError, which never repeats what is in it."""
    if len(content) > SETTINGS_LIMIT:
        raise InvalidError(f"has more than {SETTINGS_LIMIT} bytes")
    try:
        value = parse_yaml(content.decode("utf-8-sig"), "file").value
    except UnicodeDecodeError:
        raise InvalidError("is not UTF-8 text") from None
    except InvalidError as error:
        places = ", ".join(":".join(line.split(":")[1:3]) for line in error.detail.splitlines())
        raise InvalidError(f"is no valid YAML or JSON; see line:column {places}") from None
    if not isinstance(value, dict):
        raise InvalidError("must hold a mapping of keys to values")
    return value
