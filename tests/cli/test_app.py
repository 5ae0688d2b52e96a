"""The command line as a user meets it."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading

import psutil
import pytest

from labctl import __version__
from labctl.cli.app import TREE, Branch, Leaf, main
from labctl.errors import ExitCode

HEAVY = ("sqlalchemy", "paramiko", "pydantic", "libvirt", "requests", "alembic", "yaml", "rich")


def _leaves():
    for name, entry in TREE.items():
        if isinstance(entry, Branch):
            yield from (((name, inner), leaf) for inner, leaf in entry.entries.items())
        else:
            yield (name,), entry


def _run(arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "labctl", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | (environment or {}),
        timeout=30,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from labctl.cli.app import main; code = main(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == "[]\n"
    assert done.stdout


def test_help_lists_commands_with_their_summaries_and_the_exit_codes(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  schema +Print the JSON Schema of specs, for editors$", text, re.M)
    assert re.search(r"^  disk +Data disks, which outlive instances and scale sets$", text, re.M)
    for code in ExitCode:
        assert f"\n  {code.value:>3}  " in text


@pytest.mark.parametrize(
    ("words", "leaf"), [pytest.param(w, e, id=" ".join(w)) for w, e in _leaves()]
)
def test_every_command_of_the_tree_can_be_loaded_and_explains_itself(words, leaf: Leaf, capsys):
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: labctl {' '.join(words)}")
    assert "--output" in text
    assert "--state-dir" in text


@pytest.mark.parametrize("words", [[], ["upgrade"], ["image"]], ids=["root", "branch", "app"])
def test_no_command_shows_the_help_and_is_a_mistake(words, capsys):
    assert main(words) == ExitCode.INVALID
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"Usage: {' '.join(['labctl', *words])} [OPTIONS] COMMAND")


def test_mistyped_commands_are_answered_with_the_right_one(capsys):
    assert main(["shcema"]) == ExitCode.INVALID
    error = capsys.readouterr().err
    assert error == (
        "labctl: No such command 'shcema'. Did you mean 'schema'?\nnext: run: labctl --help\n"
    )


def test_mistyped_options_are_answered_with_the_right_one(capsys):
    assert main(["schema", "--verbos"]) == ExitCode.INVALID
    error = capsys.readouterr().err
    assert "--verbose?" in error
    assert "next: run: labctl schema --help" in error


def test_a_wrong_value_of_an_option_names_the_right_ones(capsys):
    assert main(["schema", "-o", "jsno"]) == ExitCode.INVALID
    error = capsys.readouterr().err
    assert "'jsno' is not one of 'table', 'json', 'yaml'" in error
    assert "Value error" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "json", "example", "nope"],
        ["example", "nope", "-o", "json"],
        ["example", "-o", "json", "nope"],
        ["--output=json", "example", "nope"],
    ],
    ids=["before", "after", "between", "long"],
)
def test_the_output_format_may_stand_anywhere(words, capsys):
    assert main(words) == ExitCode.INVALID
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "INVALID"
    assert error["message"] == "there is no example 'nope'"


def test_one_run_leaves_no_options_for_the_next(capsys):
    main(["-o", "json", "example", "nope"])
    capsys.readouterr()
    main(["example", "nope"])
    assert capsys.readouterr().err.startswith("labctl: there is no example 'nope'")


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"labctl {__version__}\n"


def test_the_shell_can_complete_commands():
    done = _run(
        [],
        {"_LABCTL_COMPLETE": "complete_bash", "COMP_WORDS": "labctl sch", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["schema"]


def test_the_shell_can_complete_options_of_a_command_that_is_imported_late():
    done = _run(
        [],
        {
            "_LABCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": "labctl schema --out",
            "COMP_CWORD": "2",
        },
    )
    assert done.stdout.split() == ["--output"]


def test_a_reader_that_goes_away_ends_the_program_quietly():
    with subprocess.Popen(
        [sys.executable, "-m", "labctl", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(30) == 141


@pytest.mark.parametrize(
    "words", [["image", "list", "-o", "json"], ["image", "-o", "json", "list"]], ids=str
)
def test_results_are_json_on_stdout_and_nothing_else_is(words, tmp_path):
    done = _run([*words, "--state-dir", str(tmp_path / "it's here")])
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert (tmp_path / "it's here" / "labctl.db").exists()


def test_ctrl_c_ends_a_command_with_a_word_on_how_to_go_on(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "labctl", "apply", "-", "--state-dir", str(tmp_path), "-v"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        # A spec that never ends: once the pipe is empty and the command sleeps, it waits for more.
        program.stdin.write("#" * 70_000)
        program.stdin.flush()
        while _count_unread(program.stdin) or psutil.Process(program.pid).status() != "sleeping":
            threading.Event().wait(0.02)
        program.send_signal(signal.SIGINT)
        error = program.stderr.read()
        assert program.wait(30) == ExitCode.INTERRUPTED
    assert "run the same command again to continue" in error
    assert "Traceback" not in error


def _count_unread(pipe):
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
