"""The scripts run as root with sudo, in a mount namespace with its own /var/lib/labctl."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from labctl.drivers.extension import (
    ExtensionError,
    rerun_custom_data,
    run_extension,
)
from labctl.drivers.guest_settings import pack_settings
from labctl.drivers.ssh import CancelledError, wait_for_ssh

from .ssh_server import SshServer, wait_until

pytestmark = pytest.mark.root
TEN_SECONDS = timedelta(seconds=10)
SECOND = timedelta(seconds=1)
# What a controller does in another process, so that it can be killed in the middle.
CONTROLLER = """
import sys
from datetime import timedelta
from pathlib import Path
from labctl.drivers.extension import run_extension
from labctl.drivers.ssh import SshTarget, connect
port, user, public, key, run_key, script = sys.argv[1:]
target = SshTarget(
    host="127.0.0.1", port=int(port), user=user, host_key_public=public, key_path=Path(key)
)
run_extension(
    connect(target), run_key=run_key, name="x", script=script.encode(),
    timeout=timedelta(seconds=60),
)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SshServer(tmp_path_factory.mktemp("extension"), is_guest=True).start()
    yield server
    server.stop()


@pytest.fixture
def connection(server):
    with wait_for_ssh(server.target, deadline=TEN_SECONDS) as connection:
        yield connection


@pytest.fixture
def run(connection, request):
    def call(script, *, timeout=TEN_SECONDS, key=request.node.name, **more):
        return run_extension(
            connection,
            run_key=key.replace("[", "-").replace("]", "")[:100],
            name="x",
            script=script if isinstance(script, bytes) else script.encode(),
            timeout=timeout,
            **more,
        )

    return call


def marked_processes():
    found = subprocess.run(
        "grep -l -s -a -F LABCTL_RUN= /proc/[0-9]*/environ", shell=True, capture_output=True
    )
    return found.stdout.split()


def test_exit_code_and_output_come_back_and_a_second_call_runs_nothing(run, tmp_path):
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\necho out; echo err >&2; echo x >>{ran}; id -u; exit 7\n"
    first = run(script)
    assert (first.exit_code, first.timed_out, first.was_resumed) == (7, False, False)
    assert first.output == "out\nerr\n0\n"
    second = run(script)
    assert (second.exit_code, second.output, second.was_resumed) == (7, first.output, True)
    assert ran.read_text() == "x\n"
    assert run(script, force=True).was_resumed is False
    assert ran.read_text() == "x\nx\n"


def test_a_script_without_interpreter_line_and_one_in_another_language(run):
    assert run("echo $((40 + 2))", key="plain").output == "42\n"
    assert run("#!/usr/bin/env python3\nprint('py')", key="python").output == "py\n"


def test_any_bytes_arrive_whole(run):
    script = b'#!/bin/sh\ntail -c +33 "$0" | wc -c\nexit' + b"\n" + bytes(range(256)) * 4000
    result = run(script)
    assert result.exit_code == 0
    assert int(result.output) == len(script) - 32


def test_a_controller_that_is_killed_neither_stops_nor_doubles_the_script(
    server, connection, tmp_path
):
    ran, go = tmp_path / "ran", tmp_path / "go"
    script = f"#!/bin/sh\necho x >>{ran}\nuntil [ -e {go} ]; do sleep 0.1; done\necho ended\n"
    target = server.target
    arguments = [str(target.port), target.user, target.host_key_public, str(target.key_path)]
    for _ in range(2):
        controller = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, *arguments, "killed", script]
        )
        wait_until(ran.exists)
        threading.Event().wait(0.5)
        controller.send_signal(signal.SIGKILL)
        controller.wait()
    threading.Timer(0.5, go.touch).start()
    result = run_extension(
        connection, run_key="killed", name="x", script=script.encode(), timeout=TEN_SECONDS
    )
    assert (result.exit_code, result.output, result.was_resumed) == (0, "ended\n", True)
    assert ran.read_text() == "x\n"


def test_a_lost_connection_is_made_again_and_the_result_is_the_same(run, server, tmp_path):
    ran = tmp_path / "ran"
    threading.Timer(1.0, server.hang_up).start()
    result = run(f"echo x >>{ran}; sleep 2.5; echo ended")
    assert (result.exit_code, result.output, result.was_resumed) == (0, "ended\n", True)
    assert ran.read_text() == "x\n"


def test_two_that_start_at_once_run_it_once(server, tmp_path):
    ran = tmp_path / "ran"
    results = []

    def call():
        with wait_for_ssh(server.target, deadline=TEN_SECONDS) as connection:
            results.append(
                run_extension(
                    connection,
                    run_key="at-once",
                    name="x",
                    script=f"echo x >>{ran}; sleep 1; echo done".encode(),
                    timeout=TEN_SECONDS,
                )
            )

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(r.exit_code, r.output) for r in results] == [(0, "done\n")] * 4
    assert ran.read_text() == "x\n"


def test_at_the_time_out_everything_that_it_started_is_killed(run):
    result = run(
        "trap '' TERM; echo begun; setsid sleep 300 & nohup sleep 301 & sleep 302",
        timeout=timedelta(seconds=1),
    )
    assert (result.exit_code, result.timed_out) == (None, True)
    assert result.output.startswith("begun\n")
    assert marked_processes() == []
    again = run("true")
    assert (again.exit_code, again.timed_out, again.was_resumed) == (None, True, True)


def test_a_service_that_it_leaves_behind_lives_on_and_does_not_hold_the_result(run):
    result = run("setsid sleep infinity & echo $!; exit 0")
    pid = int(result.output)
    try:
        assert (result.exit_code, result.timed_out) == (0, False)
        assert subprocess.run(["kill", "-0", str(pid)]).returncode == 0
    finally:
        subprocess.run(["kill", str(pid)])


def test_output_is_bounded_here_and_on_the_disk_of_the_guest(run, server):
    seen = []
    result = run(
        "head -c 30000000 /dev/zero | tr '\\0' a; echo; echo the end",
        on_output=seen.append,
        timeout=timedelta(seconds=30),
        key="loud",
    )
    assert result.exit_code == 0
    assert result.output.endswith("a\nthe end\n")
    assert len(result.output) == 64 * 1024
    directory = server.path("/var/lib/labctl/extensions/loud")
    assert sum(p.stat().st_size for p in directory.iterdir() if p.is_file()) < 9_000_000


def test_a_script_killed_from_outside_is_told_from_one_that_failed(run, server):
    result = run("kill -9 $$")
    assert result.exit_code == 137
    directory = server.path("/var/lib/labctl/extensions/cut")

    def kill_runner():
        wait_until((directory / "pid").exists)
        os.kill(int((directory / "pid").read_text()), signal.SIGKILL)

    threading.Timer(0.5, kill_runner).start()
    result = run("sleep 20", key="cut", timeout=timedelta(seconds=30))
    assert (result.exit_code, result.timed_out) == (None, False)
    assert "killed from outside" in result.output
    wait_until(lambda: marked_processes() == [])


def test_a_run_that_a_restart_of_the_guest_cut_off_begins_anew_but_not_for_ever(
    run, server, tmp_path
):
    ran = tmp_path / "ran"
    script = f"echo x >>{ran}"
    run(script, key="boots")
    directory = server.path("/var/lib/labctl/extensions/boots")

    def pretend_restart():
        (directory / "exit").unlink()
        next(directory.glob("claim-*")).rmdir()

    for times in (2, 3):
        pretend_restart()
        assert run(script, key="boots").exit_code == 0
        assert ran.read_text() == "x\n" * times
    pretend_restart()
    result = run(script, key="boots")
    assert (result.exit_code, result.was_resumed) == (None, True)
    assert "restarted three times" in result.output
    assert ran.read_text() == "x\n" * 3


def test_waiting_can_be_given_up_while_the_script_runs_on(run, tmp_path):
    ended = tmp_path / "ended"

    def check():
        if (tmp_path / "begun").exists():
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        run(f"touch {tmp_path}/begun; sleep 1; touch {ended}", check=check)
    wait_until(ended.exists)


def test_a_key_that_is_no_file_name_is_refused(run):
    with pytest.raises(ExtensionError, match="not a file name"):
        run("true", key="../x")


def test_custom_data_is_run_again_by_the_modules_of_cloud_init(connection, server, tmp_path):
    """cloud-init is a recorder here; the real one is asked in the e2e tests."""
    fake = server.path("/usr/local/sbin/cloud-init")
    fake.write_text(f'#!/bin/sh\necho "$@" | tee -a {tmp_path}/calls\n[ "$2" != --mode=final ]\n')
    fake.chmod(0o755)
    try:
        result = rerun_custom_data(connection, run_key="rerun-1")
        rerun_custom_data(connection, run_key="rerun-1")
    finally:
        fake.unlink()
    modes = "modules --mode=init\nmodules --mode=config\nmodules --mode=final\n"
    assert (result.exit_code, result.stdout) == (1, modes)
    assert (tmp_path / "calls").read_text() == modes
    assert rerun_custom_data(connection).exit_code == 127


SECRET = "s3cret-in-the-guest"
PACK = pack_settings({"port": 8080}, {"token": SECRET})


def grep_guest(server, *more):
    """Files of the guest that hold the secret, on its disk and in its memory."""
    places = [server.path("/var/lib/labctl"), server.path("/run"), *more]
    found = subprocess.run(["grep", "-rlsa", SECRET, *places], capture_output=True, text=True)
    return found.stdout.splitlines()


def test_settings_are_handed_over_in_memory_for_the_time_of_the_run(run, server, tmp_path):
    seen = tmp_path / "seen"
    script = (
        'cd "$LABCTL_SETTINGS_DIR" || exit 9\n'
        'stat -c "%a %U %n" . protected protected.json protected/token settings/port\n'
        f"cat settings/port settings.json protected.json; pwd >{seen}; cat protected/token\n"
    )
    result = run(script, settings=PACK, is_private=True)
    assert result.output.splitlines() == [
        "700 root .",
        "700 root protected",
        "600 root protected.json",
        "600 root protected/token",
        "600 root settings/port",
        f'8080{{"port": 8080}}{{"token": "{SECRET}"}}{SECRET}',
    ]
    assert seen.read_text().startswith("/run/labctl/extensions/")
    assert not server.path(seen.read_text().strip()).exists()
    assert grep_guest(server) == []
    again = run(script, settings=PACK, is_private=True)
    assert (again.exit_code, again.was_resumed) == (0, True)


def test_settings_vanish_when_the_script_fails_runs_late_or_is_killed(run, server):
    assert run("exit 3", settings=PACK, is_private=True, key="fails").exit_code == 3
    late = run("sleep 60", settings=PACK, is_private=True, key="late", timeout=SECOND)
    assert late.timed_out
    directory = server.path("/var/lib/labctl/extensions/dead")

    def kill_runner():
        wait_until((directory / "pid").exists)
        os.kill(int((directory / "pid").read_text()), signal.SIGKILL)

    threading.Timer(0.5, kill_runner).start()
    dead = run("sleep 60", settings=PACK, is_private=True, key="dead")
    assert "killed from outside" in dead.output
    assert grep_guest(server) == []
    assert not any(server.path("/run/labctl/extensions").iterdir())


def test_a_secret_is_on_no_command_line_while_it_runs(run, server, tmp_path):
    listed = []

    def check():
        if (tmp_path / "begun").exists() and not listed:
            done = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True)
            listed.append(done.stdout)
            (tmp_path / "go").touch()

    script = f"touch {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    result = run(script, settings=PACK, is_private=True, check=check)
    assert result.exit_code == 0
    assert "extension" in listed[0]
    assert SECRET not in listed[0]


def test_a_lost_connection_with_settings_neither_doubles_nor_leaks(run, server, tmp_path):
    ran = tmp_path / "ran"

    def hang_up():
        wait_until(ran.exists, seconds=30)
        server.hang_up()

    threading.Thread(target=hang_up).start()
    script = f'echo x >>{ran}; sleep 2.5; cat "$LABCTL_SETTINGS_DIR/settings/port"'
    result = run(script, settings=PACK, is_private=True, timeout=timedelta(seconds=60))
    assert (result.exit_code, result.output, result.was_resumed) == (0, "8080", True)
    assert ran.read_text() == "x\n"
    assert grep_guest(server) == []


def test_settings_reach_a_run_that_a_restart_of_the_guest_cut_off(run, server):
    script = 'cat "$LABCTL_SETTINGS_DIR/protected/token"'
    assert run(script, settings=PACK, is_private=True, key="again").output == SECRET
    directory = server.path("/var/lib/labctl/extensions/again")
    (directory / "exit").unlink()
    next(directory.glob("claim-*")).rmdir()
    shutil.rmtree(server.path("/run/labctl/extensions"))
    assert run(script, settings=PACK, is_private=True, key="again").output == SECRET
    assert grep_guest(server) == []
