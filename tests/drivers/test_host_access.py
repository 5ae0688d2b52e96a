import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.drivers import host_access
from labctl.drivers.host_access import (
    Permission,
    User,
    find_barriers,
    find_qemu_user,
    is_local,
    is_system,
    may_access,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="tries what other users may do")
NOBODY = User.from_id(65534)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """Everybody may pass to it, unlike to pytest's own directories."""
    place = Path(tempfile.mkdtemp(prefix="labctl test ", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+ssh://lab/system", False),
        ("test:///default", False),
    ],
)
def test_a_connection_is_local_when_it_names_no_other_host(uri: str, local: bool) -> None:
    assert is_local(uri) is local


def test_a_session_of_root_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert is_system("qemu:///session")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not is_system("qemu:///session")
    assert is_system("qemu:///system")


def test_qemu_runs_as_the_user_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert find_qemu_user("qemu:///session").user_id == 65534


@pytest.mark.host
@pytest.mark.root
@as_root
def test_libvirt_tells_the_user_of_the_systems_qemu() -> None:
    user = find_qemu_user("qemu:///system")
    assert user == User.from_id(user.user_id)
    assert user.group_id in user.groups


def test_a_number_without_a_name_is_a_user_too() -> None:
    assert User.from_id(54321) == User(
        name="54321", user_id=54321, group_id=54321, groups=frozenset({54321})
    )


@pytest.mark.root
@as_root
def test_what_another_user_may_do_is_tried_as_that_user(open_dir: Path) -> None:
    file = open_dir / "file"
    file.touch(mode=0o600)
    assert not may_access(NOBODY, file, Permission.USE)
    os.chown(file, 0, NOBODY.group_id)
    file.chmod(0o660)
    assert may_access(NOBODY, file, Permission.USE)
    file.chmod(0o640)
    assert not may_access(NOBODY, file, Permission.USE)


@pytest.mark.parametrize(
    ("mode", "owner", "group", "allowed"),
    [
        (0o700, 7, 7, True),
        (0o070, 7, 8, False),  # the owner's bits count for the owner, though the group's allow it
        (0o010, 9, 8, True),
        (0o001, 9, 9, True),
        (0o010, 9, 9, False),
        (0o101, 9, 8, False),  # the group's bits count for its members, though the others' allow it
    ],
)
def test_the_mode_is_read_as_the_kernel_reads_it(
    mode: int, owner: int, group: int, allowed: bool
) -> None:
    user = User(name="u", user_id=7, group_id=8, groups=frozenset({8}))
    found = os.stat_result((0o040000 | mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert host_access._mode_allows(user, found, Permission.PASS) is allowed


@pytest.mark.root
@as_root
def test_barriers_are_found_on_the_whole_way(open_dir: Path) -> None:
    way = open_dir / "a" / "b b"
    way.mkdir(parents=True)
    assert list(find_barriers(NOBODY, way / "not yet" / "there")) == []
    (open_dir / "a").chmod(0o700)
    # What lies behind the outermost barrier is out of reach as well.
    assert next(find_barriers(NOBODY, way)) == open_dir / "a"
    (open_dir / "a").chmod(0o711)
    way.chmod(0o700)
    assert list(find_barriers(NOBODY, way)) == [way]
