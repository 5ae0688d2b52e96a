"""What labctl says to a Windows guest and understands of it. A real sshd, and in the place of
PowerShell a program that reads the same command line and stdin: there is no Windows here."""

import json
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.drivers.extension import ExtensionError, run_extension
from labctl.drivers.guest_settings import pack_settings
from labctl.drivers.readiness import Deadlines, NotReadyError, climb
from labctl.drivers.ssh import wait_for_ssh
from labctl.model.instance import Rung

from .ssh_server import SshServer, wait_until
from .test_readiness import Signal

pytestmark = pytest.mark.root
SECOND = timedelta(seconds=1)
# It keeps each call: the words, the values before the script, and the script's first line.
POWERSHELL = f"""#!{sys.executable}
import base64, json, pathlib, re, sys
folder = pathlib.Path("/run/fake")
head, rest = sys.stdin.read().split("\\n", 1)
name = rest.split(None, 2)[1]
found = re.search(r"FromBase64String\\('([^']+)'\\)", head)
values = json.loads(base64.b64decode(found[1])) if found else {{}}
with open(folder / "calls", "a") as calls:
    print(json.dumps([sys.argv[1:], values, name]), file=calls)
out, err, code = json.loads((folder / "answer.json").read_text())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class WindowsGuest:
    def __init__(self, directory):
        self.server = SshServer(directory, is_guest=True).start()
        wait_until(self.server.is_listening)
        program = self.server.path("/usr/local/sbin/powershell.exe")
        program.write_text(POWERSHELL)
        program.chmod(0o755)
        self.folder = self.server.path("/run/fake")
        self.folder.mkdir()
        self.console = directory / "console.log"
        self.console.touch()
        self.target = replace(self.server.target, is_windows=True)

    def answers(self, out, err="", code=0):
        (self.folder / "answer.json").write_text(json.dumps([out, err, code]))

    @property
    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def climb(self):
        return climb(
            self.target,
            console_log=self.console,
            console_offset=0,
            deadlines=Deadlines(ssh=10 * SECOND, custom_data=10 * SECOND),
            failed=Signal(),
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    guest = WindowsGuest(tmp_path_factory.mktemp("windows"))
    yield guest
    guest.server.stop()


@pytest.fixture
def guest(running):
    (running.folder / "calls").unlink(missing_ok=True)
    return running


def told(verdict, disk="mounted"):
    report = {"dataDisks": [{"name": "db", "state": disk, "detail": "it is not blank"}]}
    lines = ["boot-id b-1", f"boot {json.dumps(report)}", f"custom-data {json.dumps(verdict)}"]
    # As PowerShell ends its lines.
    return "".join(f"{line}\r\n" for line in [*lines, "outcome custom-data"])


def test_an_instance_is_ready_when_it_is_prepared_and_its_custom_data_is_through(guest):
    guest.answers(told({"status": "done", "exitCode": 0}))
    report = guest.climb()
    report.connection.close()
    assert (report.boot_id, report.data_disks, report.warning) == ("b-1", ("db: mounted",), "")
    ((words, values, _),) = guest.calls
    assert words[:2] == ["-NoProfile", "-NonInteractive"]
    assert words[-2] == "-EncodedCommand"
    assert 0 < values["seconds"] <= 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (told({"status": "failed", "exitCode": 3}), "it ended with exit code 3"),
        (told({"status": "failed", "detail": "not run"}), "custom data failed: not run"),
        (told({"status": "done"}, disk="failed"), "data disk db: it is not blank"),
        ("outcome timeout\r\n", "custom data did not end within 10 s"),
    ],
    ids=["exit code", "detail", "disk", "late"],
)
def test_an_instance_that_must_not_be_used_says_why(guest, answer, reason):
    guest.answers(answer)
    with pytest.raises(NotReadyError, match=reason) as caught:
        guest.climb()
    assert caught.value.rung is Rung.CUSTOM_DATA


def test_a_guest_without_powershell_is_told_with_its_own_words(guest):
    guest.answers("", "the shell is not there\r\n", 1)
    with pytest.raises(NotReadyError, match="the shell is not there"):
        guest.climb()


def run(guest, **more):
    with wait_for_ssh(guest.target, deadline=10 * SECOND) as connection:
        return run_extension(
            connection, run_key="g1-a", name="x", timeout=9 * SECOND, **{"script": b"a", **more}
        )


def test_an_extension_is_handed_over_and_its_end_is_read(guest):
    guest.answers("hello\r\n", "#< CLIXML\r\nlabctl-extension code=3 timed_out=0 resumed=1\r\n")
    result = run(guest, settings=pack_settings({"a": "b"}, {}))
    assert (result.exit_code, result.output, result.was_resumed) == (3, "hello\r\n", True)
    ((_, values, _),) = guest.calls
    assert (values["key"], values["seconds"], values["isForced"]) == ("g1-a", 9, False)
    assert {"file": "settings/a", "content": "b"} in values["settings"]


def test_a_script_of_the_largest_size_arrives(guest):
    guest.answers("", "labctl-extension code=0 timed_out=0 resumed=0\n")
    assert run(guest, script=b"# " + b"x" * (2**20 - 2)).has_succeeded
    ((_, values, _),) = guest.calls
    assert len(values["script"]) == 4 * ((2**20 + 2) // 3)


def test_one_that_cannot_be_started_is_an_error_with_the_reason(guest):
    guest.answers("", "the boot script has not run\r\n", 1)
    with pytest.raises(ExtensionError, match="the boot script has not run"):
        run(guest)


def test_protected_settings_never_get_there(guest):
    guest.answers("", "")
    with pytest.raises(ExtensionError, match="protected settings"):
        run(guest, is_private=True)
    assert not (guest.folder / "calls").exists()
