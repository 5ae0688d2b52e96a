"""Reads the header of a qcow2 file that nobody trusts yet, before any QEMU tool opens it."""

import json
import struct
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.drivers.command import CommandError, run
from labctl.errors import InvalidError

_MAGIC = b"QFI\xfb"
# magic, version, backing file offset and length, cluster bits, size, encryption, ... , at 72 the
# incompatible features of version 3 (the format: docs/interop/qcow2.txt of QEMU)
_HEADER = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE_AT = 72
_INCOMPATIBLE = struct.Struct(">Q")
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1, 2, 4
_KNOWN = 0b11111  # and: compression type, extended L2 entries
_CHECK_TIMEOUT = timedelta(minutes=10)
_CORRUPTED = 2  # exit code of `qemu-img check`; 3 is only lost space


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of a qcow2 file says."""

    version: int
    virtual_size: int  # bytes that the guest sees


def read_header(path: Path, *, name: Path | None = None) -> Header:
    """Read a file that stands for itself; errors call it `name`.

    Raises InvalidError for what is no qcow2 file, and for one that leads to other files (a backing
    file could name any file of this host), is encrypted, dirty or corrupt.
    """
    name = name or path
    with path.open("rb") as file:
        start = file.read(_INCOMPATIBLE_AT + _INCOMPATIBLE.size)
    if len(start) < _INCOMPATIBLE_AT or not start.startswith(_MAGIC):
        raise InvalidError(
            f"{str(name)!r} is not a qcow2 image",
            detail=f"it begins with {start[:4]!r}" if start else "it is empty",
            hint="import a raw disk with --format raw",
        )
    _, version, backing, _, cluster_bits, size, encryption = _HEADER.unpack_from(start)
    features = 0
    if version == 3 and len(start) >= _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
        (features,) = _INCOMPATIBLE.unpack_from(start, _INCOMPATIBLE_AT)
    faults = {
        f"its format version is {version}, known are 2 and 3": version not in {2, 3},
        "it needs a backing file": backing != 0,
        "it keeps its data in another file": features & _EXTERNAL_DATA,
        "it is encrypted": encryption != 0,
        "it was not closed properly (dirty bit)": features & _DIRTY,
        "it is marked as corrupt": features & _CORRUPT,
        f"it needs unknown features ({features:#x})": features & ~_KNOWN,
        f"its cluster size is 2^{cluster_bits}": not 9 <= cluster_bits <= 21,
        "its virtual size is 0": size == 0,
    }
    found = [fault for fault, holds in faults.items() if holds]
    if found:
        raise InvalidError(
            f"image {str(name)!r} cannot be used: {found[0]}",
            detail="; ".join(found[1:]),
            hint="make one that stands for itself: qemu-img convert -O qcow2 IMAGE NEW",
        )
    return Header(version=version, virtual_size=size)


def verify(path: Path, *, name: Path | None = None) -> Header:
    """Let qemu-img check all tables of a file whose header `read_header` accepts.

    Raises InvalidError for a damaged file or one that names others.
    """
    name = name or path
    header = read_header(path, name=name)
    done = run(
        ["qemu-img", "check", "-q", "-f", "qcow2", "--output=json", path],
        timeout=_CHECK_TIMEOUT,
        check=False,
    )
    if done.exit_code not in {0, 3}:
        raise InvalidError(
            f"image {str(name)!r} is damaged",
            detail=_explain(done.stdout)
            if done.exit_code == _CORRUPTED
            else (done.stderr or done.stdout).strip()[-500:],
            hint="fetch or build it again; qemu-img check -f qcow2 tells more",
        )
    try:
        told = json.loads(
            run(
                ["qemu-img", "info", "-f", "qcow2", "--output=json", path], timeout=_CHECK_TIMEOUT
            ).stdout
        )
    except CommandError as error:
        raise InvalidError(f"qemu-img cannot read {str(name)!r}", detail=error.detail) from error
    specific = told.get("format-specific", {}).get("data", {})
    if "backing-filename" in told or "data-file" in specific:
        raise InvalidError(f"image {str(name)!r} names other files", hint="flatten it first")
    return header


def _explain(report: str) -> str:
    try:
        found = json.loads(report)
    except json.JSONDecodeError:
        return report.strip()[-500:]
    return f"corruptions: {found.get('corruptions', 0)}, errors: {found.get('check-errors', 0)}"
