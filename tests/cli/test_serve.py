"""`labctl serve` before it serves: options and the unit file."""

import shlex
import subprocess
import sys

import pytest

from labctl.cli.app import main


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--first-within", "soon"], "--first-within 'soon'"),
        (["--rollout-after", "60m-30m"], "ends before it begins"),
        (["--rollout-after", "30m-"], "--rollout-after ''"),
        (["--first-within", "25h"], "longer than a day"),
    ],
)
def test_bad_times_are_refused_before_anything_begins(words, text, tmp_path, capsys):
    assert main(["serve", *words, "--state-dir", str(tmp_path / "none")]) == 2
    assert text in capsys.readouterr().err


def test_the_unit_file_holds_paths_with_special_characters(tmp_path, capsys):
    odd = tmp_path / 'a "b" 100% $HOME'
    assert main(["serve", "--systemd-unit", "--state-dir", str(odd)]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("ExecStart="))
    assert str(odd).replace('"', '\\"').replace("%", "%%").replace("$", "$$") in line


def test_the_unit_file_starts_this_program_however_it_was_started(tmp_path):
    ask = ["-m", "labctl", "--state-dir", str(tmp_path), "serve", "--systemd-unit"]
    ask += ["--first-within", "5s", "--rollout-after", "1s-3s"]
    unit = run([sys.executable, *ask])
    assert "Type=notify" in unit.splitlines()
    start = next(x for x in unit.splitlines() if x.startswith("ExecStart="))
    assert start.endswith('serve --first-within "5s" --rollout-after "1s-3s"')
    # systemd starts it in another directory.
    words = shlex.split(start.removeprefix("ExecStart="))
    assert "Run the controller" in run([*words, "--help"], cwd="/")


def run(command, cwd=None):
    """Its output; it must succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_a_stop_of_the_unit_spares_what_outlives_the_daemon(tmp_path, capsys):
    assert main(["serve", "--systemd-unit", "--state-dir", str(tmp_path)]) == 0
    assert "KillMode=process" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("uri", "target", "names_libvirtd"),
    [
        ("qemu:///system", "multi-user.target", True),
        ("qemu:///session", "default.target", False),
    ],
)
def test_the_unit_file_of_a_session_is_for_the_user_s_own_service_manager(
    uri, target, names_libvirtd, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("os.geteuid", lambda: 1000)  # for root both lead to the host's daemons
    assert main(["serve", "--systemd-unit", "--state-dir", str(tmp_path), "--uri", uri]) == 0
    unit = capsys.readouterr().out.splitlines()
    assert f"WantedBy={target}" in unit
    assert ("Wants=libvirtd.service" in unit) is names_libvirtd
    assert any(x.startswith("After=libvirtd.service") for x in unit) is names_libvirtd
