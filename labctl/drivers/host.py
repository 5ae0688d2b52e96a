"""What this host has for instances: processors, memory, space, and how many may boot at once."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from labctl.drivers.acceleration import AccelerationKind
from labctl.errors import HostError

_MEMINFO = Path("/proc/meminfo")
_ROWS = ("MemTotal", "MemAvailable")

# With 2 emulating cores, about 6 boots at once end soonest: guests wait for disks and timers too.
_EMULATED_BOOTS_PER_CPU = 3
# With KVM the guests' own work is short and the host's disk is what they share.
_BOOTS_PER_CPU = 4
_MAX_BOOTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The host, read at one moment. Sizes in bytes."""

    cpus: int  # those that this process may use
    memory: int
    free_memory: int  # what new processes can get without swapping
    free_space: int  # where `path` is or will be, for this user
    path: Path  # the existing directory that was measured


def read_host_facts(path: Path) -> HostFacts:
    """Read memory, processors and the free space where `path` is or would be made.

    Raises HostError when the kernel does not tell its memory.
    """
    directory = find_existing(path)
    memory = read_memory(_MEMINFO.read_text(encoding="ascii"))
    return HostFacts(
        cpus=len(os.sched_getaffinity(0)),
        memory=memory["MemTotal"],
        free_memory=memory["MemAvailable"],
        free_space=shutil.disk_usage(directory).free,
        path=directory,
    )


def find_existing(path: Path) -> Path:
    """The nearest of `path` and its parents that exists."""
    # A parent that this user may not search looks absent, so that the one above it is reported.
    return next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110


def read_memory(meminfo: str) -> dict[str, int]:
    """The rows MemTotal and MemAvailable of /proc/meminfo, in bytes. Raises HostError without."""
    rows = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name in _ROWS:
            rows[name] = int(value.split()[0]) * 1024
    if len(rows) != len(_ROWS):
        raise HostError(f"{_MEMINFO} does not tell the free memory", detail=meminfo[:200])
    return rows


def boots_at_once(cpus: int, kind: AccelerationKind) -> int:
    """How many instances may be between power-on and ready: 6 on 2 emulating cores."""
    each = _BOOTS_PER_CPU if kind is AccelerationKind.KVM else _EMULATED_BOOTS_PER_CPU
    return min(max(2, cpus * each), _MAX_BOOTS)
