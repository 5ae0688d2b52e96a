import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.drivers import acceleration
from labctl.drivers.acceleration import Acceleration, AccelerationKind, find_acceleration
from labctl.errors import HostError, InvalidError
from labctl.settings import Settings

SECONDS = timedelta(seconds=20)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", uri="qemu:///system")


@pytest.mark.host
def test_the_trial_code_runs_to_its_end_on_an_emulated_processor() -> None:
    assert acceleration.run_trial(accelerator="tcg", cpu_model="qemu64", deadline=SECONDS) == (
        acceleration._DONE_EXIT_CODE,
        "",
    )


@pytest.mark.host
def test_a_trial_that_does_not_end_is_told_from_one_that_fails() -> None:
    too_short = timedelta(milliseconds=20)
    assert acceleration.run_trial(accelerator="tcg", cpu_model="qemu64", deadline=too_short) == (
        None,
        "",
    )
    exit_code, message = acceleration.run_trial(
        accelerator="no-such", cpu_model="qemu64", deadline=SECONDS
    )
    assert exit_code == 1
    assert "no-such" in message


@pytest.mark.host
def test_a_temporary_directory_with_a_comma_and_spaces_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a, b"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    exit_code, _ = acceleration.run_trial(accelerator="tcg", cpu_model="qemu64", deadline=SECONDS)
    assert exit_code == acceleration._DONE_EXIT_CODE
    assert list(directory.iterdir()) == []


@pytest.mark.host
def test_the_verdict_is_reached_once_and_remembered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_acceleration(settings, environment={})
    monkeypatch.setattr(acceleration, "try_kvm", lambda: pytest.fail("tried again"))
    assert find_acceleration(settings, environment={}) == found


@pytest.mark.host
def test_a_changed_host_is_tried_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter(
        Acceleration(kind=kind, reason=f"the trial said {kind}") for kind in AccelerationKind
    )
    monkeypatch.setattr(acceleration, "try_kvm", lambda: next(verdicts))
    assert find_acceleration(settings, environment={}).kind is AccelerationKind.KVM
    path = settings.cache_dir / "acceleration.json"
    remembered = json.loads(path.read_text())
    remembered["host"]["kernel"] = "an older one"
    path.write_text(json.dumps(remembered))
    assert find_acceleration(settings, environment={}).kind is AccelerationKind.TCG


@pytest.mark.host
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"host": {}}', "\0"])
def test_a_damaged_memory_is_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    verdict = Acceleration(kind=AccelerationKind.TCG, reason="the trial said so")
    monkeypatch.setattr(acceleration, "try_kvm", lambda: verdict)
    settings.cache_dir.mkdir(parents=True)
    (settings.cache_dir / "acceleration.json").write_text(damage)
    assert find_acceleration(settings, environment={}) == verdict


@pytest.mark.host
def test_a_state_directory_that_cannot_be_written_does_not_hide_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Acceleration(kind=AccelerationKind.TCG, reason="the trial said so")
    monkeypatch.setattr(acceleration, "try_kvm", lambda: verdict)
    (tmp_path / "file").touch()
    blocked = Settings(state_dir=tmp_path / "file", uri="qemu:///system")
    assert find_acceleration(blocked, environment={}) == verdict


def test_a_missing_device_means_emulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "kvm")
    assert acceleration.try_kvm() == Acceleration(
        kind=AccelerationKind.TCG, reason=f"{tmp_path}/kvm does not exist"
    )


def test_a_missing_qemu_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which(acceleration.QEMU) is None
    with pytest.raises(HostError, match="qemu-system-x86_64"):
        find_acceleration(settings, environment={})


@pytest.mark.parametrize(
    ("kind", "cpu_model", "boot_factor"),
    [("kvm", "host-passthrough", 1.0), ("tcg", "qemu64", 5.0)],
)
def test_the_environment_decides_without_a_trial(
    settings: Settings, kind: str, cpu_model: str, boot_factor: float
) -> None:
    found = find_acceleration(settings, environment={"LABCTL_ACCELERATION": kind})
    assert (found.kind, found.reason) == (AccelerationKind(kind), "LABCTL_ACCELERATION says so")
    assert (found.cpu_model, found.boot_factor) == (cpu_model, boot_factor)


def test_the_environment_cannot_name_another_kind(settings: Settings) -> None:
    with pytest.raises(InvalidError, match="'hvf'"):
        find_acceleration(settings, environment={"LABCTL_ACCELERATION": "hvf"})
