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
