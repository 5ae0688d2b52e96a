"""Programs of the user's, as real processes."""

import fcntl
import os
import sys
import time
from datetime import timedelta

import pytest

from labctl.drivers.program import KEPT, ProgramError, find_program, run_program
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
    with pytest.raises(ProgramError, match="has not ended yet"):
        run("true", timeout=timedelta(milliseconds=300))
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
