"""Climbs against a real sshd in a mount namespace of its own that plays the guest; needs root."""

import json
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.drivers import readiness, ssh, ssh_socket
from labctl.drivers.keys import make_key_pair
from labctl.drivers.readiness import Deadlines, NotReadyError, climb
from labctl.drivers.ssh import CancelledError
from labctl.model.instance import Rung

from .clock import Looks, stop_clock
from .ssh_server import SshServer, wait_until

pytestmark = pytest.mark.root
DEADLINES = Deadlines(ssh=timedelta(seconds=10), custom_data=timedelta(seconds=10))
STAGES = ("init-local", "init", "modules-config", "modules-final")


class Signal:
    def __init__(self):
        self.event = threading.Event()
        self.message = ""


class Guest:
    def __init__(self, directory):
        self.server = SshServer(directory, is_guest=True)
        self.console = directory / "console.log"
        self.console.write_text("Kernel panic - not syncing: of the boot before\n")
        self.offset = self.console.stat().st_size
        self.signal = Signal()
        self.rungs = []

    def climb(self, *, deadlines=DEADLINES, target=None):
        report = climb(
            target or self.server.target,
            console_log=self.console,
            console_offset=self.offset,
            deadlines=deadlines,
            failed=self.signal,
            on_rung=lambda rung, text: self.rungs.append((rung, text)),
        )
        report.connection.close()
        return report

    def start(self, *, has_cloud_init=False):
        self.server.start()
        wait_until(self.server.is_listening)
        if has_cloud_init:
            program = self.server.path("/usr/local/sbin/cloud-init")
            program.write_text("#!/bin/sh\nexit 1\n")
            program.chmod(0o755)
        return self

    def write(self, path, document):
        file = self.server.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1))
        part.rename(file)

    def end_cloud_init(self, errors=(), recoverable=None):
        stages = {stage: {"errors": [], "recoverable_errors": {}} for stage in STAGES}
        stages["modules-final"]["errors"] = list(errors)
        stages["init"]["recoverable_errors"] = recoverable or {}
        self.write("/run/cloud-init/status.json", {"v1": {**stages, "stage": None}})
        self.write("/run/cloud-init/result.json", {"v1": {"errors": list(errors)}})

    def say(self, text):
        with self.console.open("a") as file:
            file.write(text)


@pytest.fixture
def guest(tmp_path):
    guest = Guest(tmp_path)
    yield guest
    guest.server.stop()


def later(seconds, function, *arguments):
    threading.Timer(seconds, function, arguments).start()


def test_an_image_without_cloud_init_is_ready_when_its_verdict_is_there(guest, monkeypatch):
    guest.start()
    disk = {"name": "db", "state": "mounted", "detail": "/data/db"}
    guest.write("/run/labctl/boot.json", {"status": "ok", "dataDisks": [disk]})
    clock = stop_clock(monkeypatch, readiness)

    def look():
        if guest.rungs:
            clock.tick()
        if clock.now == 3:
            guest.write("/run/labctl/custom-data.json", {"status": "done", "exitCode": 0})

    guest.signal.event = Looks(look)
    report = guest.climb()
    assert report.ssh_time == timedelta(0)
    assert report.custom_data_time >= timedelta(seconds=3)
    assert report.warning == ""
    assert report.data_disks == ("db: mounted",)
    assert report.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert [rung for rung, _ in guest.rungs] == [Rung.SSH, Rung.CUSTOM_DATA]


def test_custom_data_that_fails_is_named(guest):
    guest.start()
    guest.write(
        "/run/labctl/custom-data.json", {"status": "error", "exitCode": 3, "detail": "exit 3"}
    )
    guest.say("hello from the console\n")
    with pytest.raises(NotReadyError, match="custom data failed: exit 3") as raised:
        guest.climb()
    assert raised.value.rung is Rung.CUSTOM_DATA
    assert raised.value.serial_tail == ("hello from the console",)


def test_cloud_init_that_ends_well(guest):
    guest.start(has_cloud_init=True)
    later(0.5, guest.end_cloud_init)
    assert guest.climb().warning == ""


def test_cloud_init_that_ends_degraded_is_ready_with_a_warning(guest):
    guest.start(has_cloud_init=True)
    guest.end_cloud_init(recoverable={"WARNING": ["Unhandled key x"], "DEPRECATED": ["y is old"]})
    assert guest.climb().warning == "custom data ended with a warning: Unhandled key x; y is old"


def test_cloud_init_that_fails(guest):
    guest.start(has_cloud_init=True)
    guest.end_cloud_init(errors=["('scripts_user', RuntimeError('1 failure'))"])
    with pytest.raises(NotReadyError, match="scripts_user"):
        guest.climb()


def test_cloud_init_that_is_disabled_runs_no_custom_data(guest):
    guest.start(has_cloud_init=True)
    guest.write("/run/cloud-init/disabled", {})
    with pytest.raises(NotReadyError, match="cloud-init is disabled"):
        guest.climb()


def test_a_data_disk_that_failed_is_no_ready_instance(guest):
    guest.start()
    disk = {"name": "db", "state": "failed", "detail": "no disk"}
    guest.write("/run/labctl/boot.json", {"status": "failed", "dataDisks": [disk]})
    guest.write("/run/labctl/custom-data.json", {"status": "done"})
    with pytest.raises(NotReadyError, match="data disk db: no disk"):
        guest.climb()


def test_custom_data_that_never_ends_stops_at_its_deadline(guest):
    guest.start(has_cloud_init=True)
    nap = guest.server.path("/usr/local/sbin/sleep")
    nap.write_text('#!/bin/sh\necho "$1" >>/run/naps\nexec /bin/sleep "$1"\n')
    nap.chmod(0o755)
    with pytest.raises(NotReadyError) as raised:
        guest.climb(deadlines=replace(DEADLINES, custom_data=timedelta(seconds=2)))
    assert raised.value.rung is Rung.CUSTOM_DATA
    # The guest itself says so, and not the controller, which would wait a minute longer for it.
    assert raised.value.message == "custom data failed: custom data did not end within 2 s"
    naps = [float(line) for line in guest.server.path("/run/naps").read_text().splitlines()]
    assert sum(naps[:-1]) < 2  # before the last one there was time left


def test_custom_data_that_restarts_the_guest_is_waited_for_again(guest):
    guest.start()
    later(1.0, guest.server.hang_up)
    later(2.0, guest.write, "/run/labctl/custom-data.json", {"status": "done"})
    assert guest.climb().warning == ""


def test_a_panic_ends_the_wait_within_two_seconds(guest, monkeypatch):
    clock = stop_clock(monkeypatch, readiness, ssh, ssh_socket)

    def look():
        clock.tick(0.125)
        if clock.now == 3:
            guest.say("[ 1.0] Kernel panic - not syncing: no init\n")

    guest.signal.event = Looks(look)
    with pytest.raises(NotReadyError, match=r"the kernel panicked: .* no init") as raised:
        guest.climb()
    assert raised.value.rung is Rung.POWER_ON
    assert 3 <= clock.now <= 5


def test_a_domain_that_goes_off_ends_the_wait_with_its_message(guest):
    looks = []

    def look():
        looks.extend(guest.rungs)
        if len(looks) == 10:  # so there is one a second at least, not only one at the end
            guest.signal.message = "the instance went off by itself"
            guest.signal.event.set()

    guest.start()
    guest.signal.event = Looks(look)
    with pytest.raises(NotReadyError, match="went off by itself") as raised:
        guest.climb()
    assert raised.value.rung is Rung.CUSTOM_DATA
    assert len(looks) == 10


def test_a_cancelled_wait_is_no_failure(guest):
    later(0.3, guest.signal.event.set)
    with pytest.raises(CancelledError):
        guest.climb()


def test_nobody_at_the_ssh_port_names_rung_and_reason(guest):
    guest.say("last words\n")
    with pytest.raises(NotReadyError, match=r"no login by SSH within 1 s: .*refuses") as raised:
        guest.climb(deadlines=replace(DEADLINES, ssh=timedelta(seconds=1)))
    assert raised.value.rung is Rung.SSH
    assert "last words" in raised.value.detail


def test_a_wrong_host_key_fails_at_once(guest):
    guest.start()
    target = replace(guest.server.target, host_key_public=make_key_pair("x").public)
    with pytest.raises(NotReadyError, match="another SSH host key") as raised:
        guest.climb(target=target)
    assert raised.value.rung is Rung.SSH
