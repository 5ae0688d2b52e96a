import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.drivers import doctor_checks, host_fixes
from labctl.drivers.doctor_checks import Check, Status, find_zombies, mend, run_checks
from labctl.drivers.host_access import User
from labctl.errors import HostError
from labctl.settings import Settings

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="asks as root")
NOBODY = User.from_id(65534)
MYSELF = User.from_id(os.geteuid())
GIB = 2**30


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A state directory to which everybody may pass, unlike to pytest's own directories."""
    place = Path(tempfile.mkdtemp(prefix="labctl test ", dir="/var/tmp"))
    place.chmod(0o711)
    yield Settings(state_dir=place, uri="qemu:///system")
    shutil.rmtree(place)


def _by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.mark.host
@pytest.mark.root
@as_root
def test_a_prepared_host_has_no_problem(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_ACCELERATION", "tcg")
    checks = run_checks(settings)
    assert [check for check in checks if check.status is Status.PROBLEM] == []
    assert [check.name for check in checks] == [
        "qemu",
        "libvirt",
        "virtlogd",
        "acceleration",
        "kvm device",
        "state directory",
        "store",
        "free space",
        "free memory",
        "ports",
        "image tools",
        "nat networks",
        "process 1",
    ]
    assert all(check.hint for check in checks if check.status is not Status.OK)


@pytest.mark.host
def test_a_libvirt_that_does_not_answer_is_a_problem_and_the_rest_is_still_checked(
    settings: Settings,
) -> None:
    absent = Settings(
        state_dir=settings.state_dir, uri="qemu+unix:///system?socket=/no-such-socket"
    )
    checks = _by_name(run_checks(absent))
    assert checks["libvirt"].status is Status.PROBLEM
    assert "/no-such-socket" in checks["libvirt"].found
    assert checks["ports"].status is Status.OK


@pytest.mark.host
def test_everything_missing_is_reported_not_raised(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor_checks, "PATH_OF_ROOT", str(tmp_path))
    checks = _by_name(run_checks(settings))
    for name in ("qemu", "libvirt", "acceleration", "image tools"):
        assert checks[name].status is Status.PROBLEM
    assert "qemu-system-x86" in checks["qemu"].hint
    assert "mmdebstrap" in checks["image tools"].hint
    assert checks["state directory"].status is Status.WARNING


@pytest.mark.root
@as_root
def test_a_closed_state_directory_is_opened_but_nothing_above_it(settings: Settings) -> None:
    for directory in (settings.state_dir, settings.blobs_dir, settings.scale_set_dir("web")):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    check = doctor_checks._check_state_dir(settings, NOBODY)
    assert check.status is Status.PROBLEM
    assert f"'{settings.state_dir}'" in check.hint
    assert len(list(mend([check]))) == 1
    assert doctor_checks._check_state_dir(settings, NOBODY).status is Status.OK
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o701

    inner = Settings(state_dir=settings.state_dir / "home" / "lab", uri=settings.uri)
    inner.state_dir.mkdir(parents=True)
    inner.state_dir.parent.chmod(0o700)
    check = doctor_checks._check_state_dir(inner, NOBODY)
    assert str(inner.state_dir.parent) in check.hint
    assert check.fix is None


def test_a_state_directory_that_is_a_file_is_named(settings: Settings) -> None:
    place = settings.state_dir / "file"
    place.touch()
    check = doctor_checks._check_state_dir(Settings(state_dir=place, uri=settings.uri), MYSELF)
    assert check.status is Status.PROBLEM
    assert str(place) in check.found


def test_a_store_that_others_may_read_is_closed(settings: Settings) -> None:
    assert doctor_checks._check_store(settings).status is Status.OK
    sqlite3.connect(settings.database).close()
    settings.database.touch()
    settings.database.chmod(0o644)
    check = doctor_checks._check_store(settings)
    assert check.status is Status.PROBLEM
    assert [outcome for _, outcome in mend([check])] == [f"chmod 0600 '{settings.database}'"]
    assert doctor_checks._check_store(settings).status is Status.OK


def test_a_kvm_device_that_qemu_may_not_open_is_a_problem_of_shared_daemons_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = settings.state_dir / "kvm"
    monkeypatch.setattr(doctor_checks, "KVM_DEVICE", device)
    assert doctor_checks._check_kvm_device(NOBODY, is_shared=True).status is Status.OK
    device.touch(mode=0o600)
    assert doctor_checks._check_kvm_device(MYSELF, is_shared=True).status is Status.OK
    check = doctor_checks._check_kvm_device(NOBODY, is_shared=True)
    assert check.status is Status.PROBLEM
    assert f"chmod 0660 {device}" in check.hint
    assert doctor_checks._check_kvm_device(NOBODY, is_shared=False).status is Status.WARNING


@pytest.mark.parametrize(
    ("free", "status"),
    [(GIB, Status.PROBLEM), (5 * GIB, Status.WARNING), (20 * GIB, Status.OK)],
)
def test_space_is_graded(free: int, status: Status) -> None:
    check = doctor_checks._grade("free space", free, (2 * GIB, 10 * GIB), "at '/'", "buy more")
    assert check.status is status
    assert bool(check.hint) is (status is not Status.OK)


def test_only_programs_that_are_missing_are_installed() -> None:
    tools = {"sh": "dash", "no-such-program": "no-such-package"}
    check = doctor_checks._check_tools("tools", tools, Status.WARNING)
    assert (check.status, check.found) == (Status.WARNING, "not installed: no-such-program")
    assert check.hint == "run as root: apt-get install --no-install-recommends no-such-package"


def test_a_fix_that_fails_does_not_stop_the_next() -> None:
    def fail() -> str:
        raise HostError("no rights")

    broken = Check(name="a", status=Status.PROBLEM, found="", fix=fail)
    works = Check(name="b", status=Status.WARNING, found="", fix=lambda: "done")
    fine = Check(name="c", status=Status.OK, found="", fix=fail)
    assert list(mend([broken, works, fine])) == [(broken, "not mended: no rights"), (works, "done")]


@pytest.mark.host
@pytest.mark.root
@as_root
def test_daemons_that_answer_are_left_alone() -> None:
    assert host_fixes.ensure_daemons() == "virtlogd and libvirtd answer now"


def test_zombies_of_process_1_are_counted_and_no_others(tmp_path: Path) -> None:
    for number, text in {
        "10": "10 (a) b) Z 1 10",
        "11": "11 (sh) S 1 11",
        "12": "12 (sh) Z 10 12",
        "13": "13 ((Z 1)) S 7 13",
    }.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "stat").write_text(text)
    assert find_zombies(tmp_path) == {"10"}
