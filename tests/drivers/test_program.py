"""Programs of the user's, as real processes."""

import fcntl
import os
import sys
import time
from datetime import timedelta

import pytest

from labctl.drivers.program import (
    KEPT,
    ProgramError,
    find_program,
    find_program_fault,
    run_program,
)
from labctl.drivers.program_lock import StillRunningError
from labctl.errors import LabError

LONG = timedelta(seconds=30)


def no_check():
    pass


@pytest.fixture
def run(tmp_path):
    def call(*command, timeout=LONG, check=no_check, stdin="", **variables):
        return run_program(
            command,
            stdin=stdin,
            variables=variables,
            timeout=timeout,
            check=check,
            lock=tmp_path / "locks" / "hook.lock",
        )

    return call


def test_both_outputs_the_exit_code_and_stdin_come_through(run):
    done = run("sh", "-c", "cat; echo oops >&2; exit 3", stdin="told\n")
    assert (done.exit_code, done.output) == (3, "told\noops\n")


def test_nothing_of_our_environment_is_handed_on(run, monkeypatch):
    monkeypatch.setenv("LABCTL_STATE_DIR", "/somewhere")
    found = run("env", LABCTL_INSTANCE="web_0").output.split()
    names = {line.partition("=")[0] for line in found}
    assert names == {"PATH", "HOME", "LANG", "LABCTL_INSTANCE"}


def test_words_are_no_shell_text(run):
    assert run("printf", "%s", "$(id); `id` && *").output == "$(id); `id` && *"


def test_the_last_of_a_long_output_is_kept(run):
    done = run(sys.executable, "-c", f"print('x' * {3 * KEPT}); print('the end')")
    assert done.output.endswith("x\nthe end\n")
    assert len(done.output) == KEPT


def test_at_its_deadline_it_is_ended_with_its_children(run, tmp_path):
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    done = run("sh", "-c", f"(sleep 60 >{alive}) & sleep 60", timeout=timedelta(seconds=1))
    assert done.exit_code is None
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # nobody holds the other end: the child is gone
    os.close(reader)


def test_a_cancelled_one_is_ended(run):
    begun = time.monotonic()

    def check():
        if time.monotonic() - begun > 0.2:
            raise LabError("cancelled")

    with pytest.raises(LabError, match="cancelled"):
        run("sleep", "60", check=check)


def test_an_orphan_of_an_earlier_run_is_waited_for(run, tmp_path):
    lock = tmp_path / "locks" / "hook.lock"
    lock.parent.mkdir()
    held = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StillRunningError, match="has not ended yet") as caught:
        run("true", timeout=timedelta(milliseconds=300))
    assert f"fuser -v {lock}" in caught.value.hint
    os.close(held)
    assert run("true").exit_code == 0


def test_what_a_run_leaves_behind_does_not_hold_up_the_next(run, tmp_path):
    pid = tmp_path / "pid"
    run("sh", "-c", f"setsid sleep 60 >/dev/null 2>&1 & echo $! >{pid}")
    try:
        assert run("true").exit_code == 0
    finally:
        os.kill(int(pid.read_text()), 9)


def test_a_program_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(ProgramError, match="'/nowhere/drain' is not there"):
        run("/nowhere/drain")
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o700)
    with pytest.raises(ProgramError, match="cannot be run"):
        run(str(broken))
    assert find_program("sh")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"echo hi\n", "its first line must be '#!' and an interpreter that is there"),
        (b"", "its first line must be '#!'"),
        (b"#!\necho hi\n", "names the interpreter '', which is not there"),
        (b"#!/nowhere/sh\n", "names the interpreter '/nowhere/sh', which is not there"),
        (b"#!/bin/sh\r\necho hi\r\n", r"(CRLF), and no interpreter is named '/bin/sh\r'"),
        (b"#!/usr/bin/env sh\r\n", r"(CRLF), and no interpreter is named 'sh\r'"),
    ],
    ids=["no mark", "empty", "nothing named", "absent", "carriage return", "and by env"],
)
def test_a_script_that_linux_would_not_begin_is_told_with_what_it_needs(content, fault, tmp_path):
    script = tmp_path / "drain"
    script.write_bytes(content)
    script.chmod(0o700)
    assert fault in (find_program_fault(str(script)) or "")


def test_a_first_line_that_linux_takes_is_no_fault(tmp_path):
    script = tmp_path / "drain"
    script.touch(mode=0o700)
    for content in (b"#! /bin/sh -e\n", b"#!/usr/bin/env sh\n", b"#!/bin/sh", b"\x7fELF\0\0"):
        script.write_bytes(content)
        assert find_program_fault(str(script)) is None
    assert find_program_fault("sh") is None


def test_what_linux_says_of_a_script_is_explained_when_it_is_run(run, tmp_path):
    script = tmp_path / "drain"
    script.touch(mode=0o700)
    for content, fault in (
        (b"echo hi\n", "its first line must be"),
        (b"#!/bin/sh\r\n", "CRLF"),
        (b"\0\1\2\3", "no program for this kind of machine"),
    ):
        script.write_bytes(content)
        with pytest.raises(ProgramError, match=fault):
            run(str(script))
