"""What becomes of a program whose starter was killed; real processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from labctl.drivers.program import run_program
from labctl.drivers.program_lock import StillRunningError, write_run

START = """
import sys
from datetime import timedelta
from pathlib import Path
from labctl.drivers.program import run_program
run_program(sys.argv[2:], stdin="", variables={}, timeout=timedelta(seconds=1),
            check=lambda: None, lock=Path(sys.argv[1]))
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "hook.lock"


@pytest.fixture
def leave(lock):
    """Leaves a program that holds the lock behind, as a starter does that is killed."""
    left = []

    def start(*command, deadline, record=write_run):
        held = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(
            command, pass_fds=(held,), start_new_session=True, stdout=subprocess.PIPE
        )
        left.append(process)
        record(held, process.pid, deadline)
        os.close(held)
        return process

    yield start
    for process in left:
        process.kill()
        process.wait()
        process.stdout.close()


def run(lock, timeout=timedelta(seconds=30)):
    return run_program(
        ["true"], stdin="", variables={}, timeout=timeout, check=lambda: None, lock=lock
    ).exit_code


def past():
    return time.monotonic() - 1


def test_an_orphan_is_ended_at_its_deadline(leave, lock):
    orphan = leave("sleep", "60", deadline=past())
    assert run(lock) == 0
    assert orphan.wait() == -signal.SIGTERM
    assert lock.read_bytes() == b""


def test_an_orphan_whose_first_process_has_ended_is_ended_too(leave, lock):
    orphan = leave("sh", "-c", "sleep 60 & echo", deadline=past())
    orphan.wait()
    assert run(lock) == 0
    assert orphan.stdout.read() == b"\n"  # to the end: nobody holds the other side


def test_before_its_deadline_it_is_named_and_left_alone(leave, lock):
    orphan = leave("sleep", "60", deadline=time.monotonic() + 600)
    with pytest.raises(StillRunningError) as caught:
        run(lock, timeout=timedelta(milliseconds=300))
    assert f"(process {orphan.pid})" in caught.value.brief
    assert caught.value.hint == f"to end it at once: kill -- -{orphan.pid}"
    assert orphan.poll() is None


def test_what_has_left_the_group_of_an_ended_run_holds_up_nothing(leave, lock):
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)

    def record(descriptor, _, deadline):
        # The number of the run's first process, which another has by now.
        told = {"group": innocent.pid, "started": 1, "deadline": deadline}
        os.pwrite(descriptor, json.dumps(told).encode(), 0)

    leaver = leave("sleep", "60", deadline=past(), record=record)
    try:
        assert [run(lock), run(lock)] == [0, 0]
        assert (leaver.poll(), innocent.poll()) == (None, None)
    finally:
        innocent.kill()
        innocent.wait()


def test_a_program_outlives_a_killed_starter_only_until_its_deadline(lock, tmp_path):
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    script = f"exec 9>{alive}; until [ -s {lock} ]; do sleep 0.05; done; echo >&9; exec sleep 60"
    starter = subprocess.Popen([sys.executable, "-c", START, str(lock), "sh", "-c", script])
    with alive.open("rb") as reader:
        assert reader.read(1) == b"\n"
        starter.kill()
        starter.wait()
        assert run(lock) == 0
        assert reader.read() == b""  # nobody holds the other end: it is gone
