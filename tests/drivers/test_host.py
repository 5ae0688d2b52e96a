from pathlib import Path

import pytest

from labctl.drivers.acceleration import AccelerationKind
from labctl.drivers.host import boots_at_once, find_existing, read_host_facts, read_memory
from labctl.errors import HostError


def test_the_facts_of_this_host_are_plausible(tmp_path: Path) -> None:
    facts = read_host_facts(tmp_path / "not" / "yet")
    assert facts.cpus >= 1
    assert 0 < facts.free_memory < facts.memory
    assert facts.free_space > 0
    assert facts.path == tmp_path


def test_the_nearest_existing_directory_is_found(tmp_path: Path) -> None:
    assert find_existing(tmp_path) == tmp_path
    assert find_existing(tmp_path / "a" / "b") == tmp_path
    assert find_existing(Path("/no-such-place/a")) == Path("/")


def test_memory_is_what_processes_can_get_not_what_is_unused() -> None:
    text = "MemTotal:  2048 kB\nMemFree:  100 kB\nMemAvailable:  1024 kB\nHugePages_Total: 0\n"
    assert read_memory(text) == {"MemTotal": 2**21, "MemAvailable": 2**20}


def test_a_kernel_that_does_not_tell_its_memory_is_named() -> None:
    with pytest.raises(HostError, match="/proc/meminfo"):
        read_memory("MemTotal:  2048 kB\n")


@pytest.mark.parametrize(
    ("cpus", "kind", "expected"),
    [
        (1, AccelerationKind.TCG, 3),
        (2, AccelerationKind.TCG, 6),
        (2, AccelerationKind.KVM, 8),
        (128, AccelerationKind.KVM, 64),
    ],
)
def test_boots_at_once_follow_processors_and_acceleration(
    cpus: int, kind: AccelerationKind, expected: int
) -> None:
    assert boots_at_once(cpus, kind) == expected
