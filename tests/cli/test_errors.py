"""What a failure looks like."""

import errno
import json
from pathlib import Path

import pytest
import typer

from labctl.cli import context
from labctl.cli.context import Options, set_options
from labctl.cli.errors import exit_code_of, show_error
from labctl.cli.output import Output
from labctl.errors import (
    ExitCode,
    HostError,
    InvalidError,
    LabError,
    NotFoundError,
    RefusedError,
    TimedOutError,
)

ERROR = LabError("image 'noble' not found", detail="looked in\n/images", hint="run: labctl image")


@pytest.fixture(autouse=True)
def options(tmp_path):
    set_options(Options(state_dir=tmp_path))


def test_errors_are_told_in_a_few_lines(capsys):
    show_error(ERROR)
    assert capsys.readouterr().err == (
        "labctl: image 'noble' not found\n  looked in\n  /images\nnext: run: labctl image\n"
    )


def test_errors_are_json_where_results_are(capsys):
    context.set_output(Output.JSON)
    show_error(ERROR)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "error": {
            "code": "FAILED",
            "message": "image 'noble' not found",
            "detail": "looked in\n/images",
            "hint": "run: labctl image",
        }
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LabError("x"), 1),
        (InvalidError("x"), 2),
        (NotFoundError("x"), 3),
        (RefusedError("x"), 4),
        (TimedOutError("x"), 5),
        (HostError("x"), 6),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
        (typer.Abort(), 1),
        (SystemExit(), 0),
        (SystemExit(3), 3),
        (ValueError("x"), 1),
    ],
    ids=repr,
)
def test_each_failure_has_its_exit_code(error, code):
    assert exit_code_of(error, []) == code


def test_an_interruption_says_how_to_go_on(capsys):
    assert exit_code_of(KeyboardInterrupt(), []) == ExitCode.INTERRUPTED
    assert "run the same command again to continue" in capsys.readouterr().err


def _crash():
    try:
        return {}["missing"]
    except KeyError as error:
        return error


def test_a_crash_shows_no_traceback_but_keeps_it_in_a_log(tmp_path, capsys):
    assert exit_code_of(_crash(), ["apply", "my web.yaml"]) == ExitCode.FAILED
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "KeyError: 'missing'" in shown
    (log,) = (tmp_path / "log").iterdir()
    assert str(log) in shown
    text = log.read_text()
    assert text.startswith("command: labctl apply 'my web.yaml'\nTraceback")
    assert "_crash" in text


def test_a_crash_shows_its_traceback_when_asked(capsys):
    context.set_verbose(value=True)
    exit_code_of(_crash(), [])
    assert "Traceback" in capsys.readouterr().err


def test_a_crash_is_logged_elsewhere_when_the_state_directory_cannot_be_used(tmp_path, capsys):
    blocker = tmp_path / "file"
    blocker.touch()
    set_options(Options(state_dir=blocker / "state"))
    exit_code_of(_crash(), [])
    words = capsys.readouterr().err.split("report it with ")[1]
    log = Path(words.split(";")[0])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_full_disk_is_no_fault_of_labctl(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "/lab/log")
    assert exit_code_of(error, ["apply"]) == ExitCode.HOST
    told = capsys.readouterr().err
    assert told.startswith("labctl: no space left for '/lab/log'\n")
    assert "next: free space" in told


def test_a_broken_pipe_to_elsewhere_is_not_kept_quiet(capsys):
    assert exit_code_of(BrokenPipeError("guest went away"), []) == ExitCode.FAILED
    assert "guest went away" in capsys.readouterr().err
