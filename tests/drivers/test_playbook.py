"""Playbooks, run by the real Ansible over a real SSH server."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.drivers import playbook as module
from labctl.drivers.keys import make_key_pair
from labctl.drivers.playbook import require_ansible, run_playbook
from labctl.drivers.ssh import CancelledError
from labctl.errors import HostError

from .ssh_server import SshServer, wait_until

EXAMPLE = Path(__file__).parents[2] / "playbooks" / "example-extension.yml"
MINUTES = timedelta(minutes=4)  # Ansible is slow on a busy host
CONTROLLER = """
import sys
from datetime import timedelta
from pathlib import Path
from labctl.drivers.playbook import run_playbook
from labctl.drivers.ssh import SshTarget
port, user, public, key, playbook, memory = sys.argv[1:]
target = SshTarget(
    host="127.0.0.1", port=int(port), user=user, host_key_public=public, key_path=Path(key)
)
run_playbook(
    target, instance="web_0", run_key="killed", name="x", playbook=Path(playbook),
    settings={}, protected={"token": "s3c" + "ret-token"}, timeout=timedelta(minutes=1),
    memory=Path(memory),
)
"""

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SshServer(tmp_path_factory.mktemp("playbook"), is_guest=True).start()
    strange = server.directory / "100%h ${HOME} key"  # a state directory may have any name
    shutil.copy2(server.target.key_path, strange)
    server.target = replace(server.target, key_path=strange)
    yield server
    server.stop()


@pytest.fixture
def memory():
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))  # short, as sockets need it
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # an SSH master of Ansible may be leaving it


@pytest.fixture
def run(server, memory):
    def call(playbook, *, key="k", timeout=MINUTES, settings=None, protected=None, **more):
        return run_playbook(
            server.target,
            instance="web_0",
            run_key=key,
            name="x",
            playbook=playbook,
            settings=settings or {},
            protected=protected or {},
            timeout=timeout,
            memory=memory,
            **more,
        )

    return call


def write(tmp_path, script):
    path = tmp_path / "play book.yml"
    path.write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: x\n"
        f"      ansible.builtin.raw: |\n        {script}\n"
    )
    return path


def test_the_example_reads_its_settings_and_leaves_nothing_else(run, memory, tmp_path):
    target = tmp_path / "greeting"
    token = "s3cret {{ 7 * 7 }}"
    result = run(
        EXAMPLE,
        settings={"path": str(target), "text": "hi {{ 1 + 1 }}"},
        protected={"token": token},
    )
    assert result.exit_code == 0, result.output
    assert target.read_text() == "hi {{ 1 + 1 }}\n"
    secret = target.with_name("greeting.token")
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (token, 0o600)
    assert "s3cret" not in result.output
    assert list((memory / f"labctl-{os.getuid()}").iterdir()) == []


def test_a_failing_task_gives_its_exit_code_and_output(run, tmp_path):
    result = run(write(tmp_path, "echo begun; exit 3"))
    assert result.exit_code == 2
    assert "begun" in result.output


def test_at_the_time_out_ansible_is_killed(run, tmp_path):
    result = run(write(tmp_path, "sleep 60"), timeout=timedelta(seconds=5))
    assert (result.exit_code, result.timed_out) == (None, True)


def test_a_controller_that_is_killed_neither_stops_nor_doubles_it(run, server, memory, tmp_path):
    ran, go = tmp_path / "ran", tmp_path / "go"
    playbook = write(tmp_path, f"echo x >>{ran}; until [ -e {go} ]; do sleep 0.1; done; echo ended")
    target = server.target
    arguments = [str(target.port), target.user, target.host_key_public, str(target.key_path)]
    controller = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, *arguments, str(playbook), str(memory)]
    )
    wait_until(ran.exists, seconds=60)
    assert (
        "s3cret" not in subprocess.run(["ps", "-ewwo", "args"], capture_output=True).stdout.decode()
    )
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    threading.Timer(1, go.touch).start()
    result = run(playbook, key="killed", protected={"token": "s3cret-token"})
    assert (result.exit_code, result.was_resumed) == (0, True), result.output
    assert ran.read_text() == "x\n"


def test_another_host_key_is_not_trusted(run, server, memory, tmp_path):
    stranger = replace(server.target, host_key_public=make_key_pair("other").public)
    result = run_playbook(
        stranger,
        instance="web_0",
        run_key="k",
        name="x",
        playbook=write(tmp_path, "true"),
        settings={},
        protected={},
        timeout=MINUTES,
        memory=memory,
    )
    assert result.exit_code == 4
    assert "host key" in result.output.lower()


def test_waiting_can_be_given_up_while_it_runs_on_and_leaves_no_secret(run, memory, tmp_path):
    def check():
        if list(memory.glob("*/*/output")):
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        run(write(tmp_path, "true"), check=check, protected={"token": "s3cret-token"})
    wait_until(lambda: list(memory.glob("*/*/exit")), seconds=60)
    assert not list(memory.glob("*/*/variables.yml"))
    reapers = [thread for thread in threading.enumerate() if thread.name.startswith("reap ")]
    for thread in reapers:
        thread.join()


def test_a_folder_that_another_user_made_is_not_used(run, memory, tmp_path):
    (memory / f"labctl-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(HostError, match="not a directory of this user alone"):
        run(write(tmp_path, "true"))


def test_without_ansible_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="ansible-playbook") as caught:
        require_ansible()
    assert "pip install" in caught.value.hint
