"""Domains on the real libvirt, with guests of one boot sector."""

import os
import pty
import queue
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from labctl.drivers import hypervisor
from labctl.drivers.domain import Hardware, PortForward, UserNetwork
from labctl.drivers.hypervisor import (
    DomainEvent,
    Hypervisor,
    LifecycleKind,
    ObservedDomain,
    PortTakenError,
    Stopped,
)
from labctl.drivers.hypervisor.lifecycle import describe_state
from labctl.errors import HostError, NotFoundError, RefusedError
from labctl.model.instance import Power
from tests.drivers.clock import Looks, stop_clock

pytestmark = pytest.mark.host

NOW = timedelta(0)
SOON = timedelta(seconds=20)
FOR_EVER = timedelta(hours=1)  # longer than a test may take: whoever waits so long never returns


def await_console(config, text=b"hello", seconds=20.0):
    wait_until(lambda: text in config.console_log.read_bytes(), seconds)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


def await_event(events, name, kind):
    deadline = time.monotonic() + 20
    while True:
        event = events.get(timeout=max(0.01, deadline - time.monotonic()))
        if event.name == name and event.kind is kind:
            return event


def pid_of(config):
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if f"guest={config.name},".encode() in command and b"qemu" in command:
                return int(process.name)
    raise AssertionError(f"no QEMU of {config.name}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("hardware", [Hardware.WINDOWS, Hardware.WINDOWS_VIRTIO])
def test_a_machine_for_windows_boots_from_its_disk_and_is_defined_once(lab, hardware):
    config = lab.start(hardware=hardware)
    await_console(config)
    assert not lab.hypervisor.ensure_defined(config)


def test_a_domain_in_an_awkward_directory_boots_and_logs_from_the_first_byte(lab):
    config = lab.start()
    await_console(config)
    assert lab.hypervisor.list_domains(lab.directory) == {
        config.name: ObservedDomain(
            name=config.name,
            uuid=config.uuid,
            generation=1,
            config_hash=config.config_hash,
            power=Power.RUNNING,
            reason="booted",
        )
    }


def test_the_second_run_of_each_effect_changes_nothing(lab):
    config = lab.make()
    hypervisor = lab.hypervisor
    assert [hypervisor.ensure_defined(config) for _ in range(2)] == [True, False]
    assert [hypervisor.ensure_started(config.name) for _ in range(2)] == [True, False]
    stops = [hypervisor.ensure_stopped(config.name, grace=NOW) for _ in range(2)]
    assert stops == [Stopped.FORCED, Stopped.WAS_OFF]
    assert [hypervisor.ensure_undefined(config.name) for _ in range(2)] == [True, False]
    assert hypervisor.ensure_stopped(config.name, grace=NOW) is Stopped.WAS_OFF


def test_a_running_domain_is_seen_as_it_runs_until_it_is_started_anew(lab):
    config = lab.start()
    upgraded = replace(config, generation=2)
    assert lab.hypervisor.ensure_defined(upgraded)
    assert lab.hypervisor.list_domains(lab.directory)[config.name].generation == 1
    lab.hypervisor.ensure_stopped(config.name, grace=NOW)
    assert lab.hypervisor.list_domains(lab.directory)[config.name].generation == 2
    assert not lab.hypervisor.ensure_defined(upgraded)


def test_the_controller_reads_disks_and_log_again_after_the_stop(lab):
    config = lab.start()
    await_console(config)
    lab.hypervisor.ensure_stopped(config.name, grace=NOW)
    for path in (config.os_disk, config.data_disks[0].path, config.console_log):
        assert path.read_bytes()
        assert path.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    base = config.os_disk.parent / "halts.qcow2"
    assert (base.stat().st_uid, stat.S_IMODE(base.stat().st_mode)) == (os.geteuid(), 0o444)


def test_the_console_log_goes_on_after_a_restart_of_the_domain(lab):
    config = lab.start()
    await_console(config)
    lab.hypervisor.ensure_stopped(config.name, grace=NOW)
    lab.hypervisor.ensure_started(config.name)
    await_console(config, b"hello\nhello\n")


@pytest.mark.parametrize("uuid_is_ours", [False, True], ids=["other-uuid", "no-mark"])
def test_a_foreign_domain_is_never_touched(lab, uuid_is_ours):
    config = lab.make()
    foreign_uuid = config.uuid if uuid_is_ours else uuid4()
    xml = f"""<domain type='qemu'><name>{config.name}</name><uuid>{foreign_uuid}</uuid>
        <memory unit='MiB'>64</memory><os><type machine='q35'>hvm</type></os></domain>"""
    virsh = ["virsh", "-q", "-c", lab.hypervisor.uri]
    subprocess.run([*virsh, "define", "/dev/stdin"], input=xml, text=True, check=True)
    try:
        before = subprocess.check_output([*virsh, "dumpxml", config.name])
        for effect in (
            lambda: lab.hypervisor.ensure_defined(config),
            lambda: lab.hypervisor.ensure_started(config.name),
            lambda: lab.hypervisor.ensure_stopped(config.name, grace=NOW),
            lambda: lab.hypervisor.ensure_undefined(config.name),
        ):
            with pytest.raises(RefusedError, match=re.escape(repr(config.name))):
                effect()
        assert subprocess.check_output([*virsh, "dumpxml", config.name]) == before
        assert lab.hypervisor.list_domains(lab.directory) == {}
    finally:
        subprocess.run([*virsh, "undefine", config.name], check=True)


def test_a_domain_of_another_state_directory_is_refused_and_not_listed(lab):
    config = lab.make()
    lab.hypervisor.ensure_defined(config)
    other = Hypervisor(lab.hypervisor.uri, state_dir=Path("/elsewhere"))
    with pytest.raises(RefusedError, match="not labctl's here"):
        other.ensure_undefined(config.name)
    assert other.list_domains(Path("/elsewhere")) == {}
    other.close()


def test_a_taken_port_is_named_with_the_others_that_are_taken(lab):
    with socket.socket() as first, socket.socket() as second:
        for taken in (first, second):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        ports = [first.getsockname()[1], free_port(), second.getsockname()[1]]
        forwards = tuple(PortForward(host_port=port, guest_port=22) for port in ports)
        config = lab.make(network=UserNetwork(forwards=forwards))
        lab.hypervisor.ensure_defined(config)
        with pytest.raises(PortTakenError) as caught:
            lab.hypervisor.ensure_started(config.name)
        assert caught.value.ports == {ports[0], ports[2]}
    assert lab.hypervisor.ensure_started(config.name)


def test_forwarded_ports_listen_on_the_loopback_only(lab):
    port = free_port()
    forwards = (PortForward(host_port=port, guest_port=22),)
    lab.start(network=UserNetwork(forwards=forwards))
    listening = subprocess.check_output(["ss", "-Hltn", f"sport = :{port}"], text=True)
    assert listening.split()[3] == f"127.0.0.1:{port}"


@pytest.mark.parametrize("what", ["os_disk", "seed", "base_image"])
def test_a_missing_disk_is_named_with_the_user_of_qemu(lab, what):
    config = lab.make()
    lab.hypervisor.ensure_defined(config)
    missing = getattr(config, what)
    missing.unlink()
    with pytest.raises(HostError) as caught:
        lab.hypervisor.ensure_started(config.name)
    assert repr(str(missing)) in caught.value.brief
    assert "QEMU runs as user" in caught.value.detail


@pytest.mark.root
def test_a_directory_that_qemu_may_not_pass_is_named(lab):
    config = lab.make()
    lab.hypervisor.ensure_defined(config)
    lab.directory.chmod(0o700)
    with pytest.raises(HostError) as caught:
        lab.hypervisor.ensure_started(config.name)
    assert config.os_disk.name in caught.value.brief
    assert "'libvirt-qemu'" in caught.value.detail


def test_an_obedient_guest_stops_gracefully_at_once(lab, monkeypatch):
    config = lab.start("obeys")
    await_console(config)
    # The first press is the only one, and nothing but the event ends the wait.
    monkeypatch.setattr(hypervisor, "_BUTTON_EVERY", FOR_EVER.total_seconds())
    assert lab.hypervisor.ensure_stopped(config.name, grace=FOR_EVER) is Stopped.GRACEFUL


def test_a_deaf_guest_loses_power_at_the_deadline(lab, monkeypatch):
    config = lab.start("halts")
    await_console(config)
    grace = timedelta(seconds=1)
    assert lab.hypervisor.ensure_stopped(config.name, grace=grace) is Stopped.FORCED
    lab.hypervisor.ensure_started(config.name)
    clock = stop_clock(monkeypatch, hypervisor)
    cancel = Looks(clock.tick)
    stop = lab.hypervisor.ensure_stopped(config.name, grace=SOON, cancel=cancel)
    assert stop is Stopped.FORCED
    assert clock.now == SOON.total_seconds()


def test_a_cancelled_stop_leaves_the_domain(lab):
    config = lab.start("halts")
    cancel = threading.Event()
    cancel.set()
    stop = lab.hypervisor.ensure_stopped(config.name, grace=SOON, cancel=cancel)
    assert stop is Stopped.CANCELLED
    assert lab.hypervisor.list_domains(lab.directory)[config.name].power is Power.RUNNING


def test_a_killed_qemu_is_told_as_a_crash_and_leaves_a_domain_that_is_off(lab):
    events: queue.Queue[DomainEvent] = queue.Queue()
    lab.hypervisor.subscribe(events.put)
    config = lab.start()
    os.kill(pid_of(config), signal.SIGKILL)
    await_event(events, config.name, LifecycleKind.CRASHED)
    seen = lab.hypervisor.list_domains(lab.directory)[config.name]
    assert (seen.power, seen.reason) == (Power.STOPPED, "crashed")
    assert lab.hypervisor.ensure_started(config.name)


def test_a_panic_is_a_crash_and_the_next_start_boots_anew(lab):
    events: queue.Queue[DomainEvent] = queue.Queue()
    lab.hypervisor.subscribe(events.put)
    config = lab.start("panics")
    event = await_event(events, config.name, LifecycleKind.CRASHED)
    assert event.detail == "panicked"
    seen = lab.hypervisor.list_domains(lab.directory)[config.name]
    assert (seen.power, seen.reason) == (Power.CRASHED, "panicked")
    assert lab.hypervisor.ensure_started(config.name)
    await_event(events, config.name, LifecycleKind.CRASHED)
    assert lab.hypervisor.ensure_stopped(config.name, grace=SOON) is Stopped.FORCED


def test_a_listener_that_fails_does_not_keep_events_from_the_next(lab):
    events: queue.Queue[DomainEvent] = queue.Queue()

    def fail(event):
        raise RuntimeError(event.name)

    spare = lab.hypervisor.subscribe(fail)
    unsubscribe = lab.hypervisor.subscribe(events.put)
    config = lab.make()
    lab.hypervisor.ensure_defined(config)
    await_event(events, config.name, LifecycleKind.DEFINED)
    spare()
    unsubscribe()
    lab.hypervisor.ensure_undefined(config.name)
    assert events.empty()


def test_two_threads_that_start_one_domain_agree(lab):
    config = lab.make()
    with ThreadPoolExecutor(2) as pool:
        defined = [pool.submit(lab.hypervisor.ensure_defined, config) for _ in range(2)]
        assert any(task.result() for task in defined)
        for _ in range(3):
            started = [pool.submit(lab.hypervisor.ensure_started, config.name) for _ in range(2)]
            assert sorted(task.result() for task in started) == [False, True]
            lab.hypervisor.ensure_stopped(config.name, grace=NOW)


def test_a_paused_guest_goes_on_so_that_it_can_shut_down(lab):
    config = lab.start("obeys")
    await_console(config)
    subprocess.run(["virsh", "-q", "-c", lab.hypervisor.uri, "suspend", config.name], check=True)
    assert lab.hypervisor.ensure_stopped(config.name, grace=SOON) is Stopped.GRACEFUL


def test_a_domain_that_is_starting_counts_as_running():
    paused, starting_up = 3, 11  # VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_STARTING_UP
    assert describe_state(paused, starting_up) == (Power.RUNNING, "starting up")


def test_starting_what_is_not_defined_says_so(lab):
    with pytest.raises(NotFoundError, match="t-none_0"):
        lab.hypervisor.ensure_started("t-none_0")


def test_a_person_leaves_the_console_with_the_escape_key(lab):
    config = lab.start()
    ours, theirs = pty.openpty()
    talk = threading.Thread(
        target=lab.hypervisor.open_console, args=(config.name, theirs, theirs), daemon=True
    )
    talk.start()
    threading.Event().wait(0.5)
    os.write(ours, b"x\x1d")
    talk.join(10)
    assert not talk.is_alive()
    os.close(ours)
    os.close(theirs)


def test_the_console_ends_with_the_domain_and_shows_what_the_guest_says(lab):
    config = lab.make()
    lab.hypervisor.ensure_defined(config)
    # A domain that waits lets the console connect before the guest speaks.
    virsh = ["virsh", "-q", "-c", lab.hypervisor.uri]
    subprocess.run([*virsh, "start", "--paused", config.name], check=True)
    shown_read, shown_write = os.pipe()
    typed_read, typed_write = os.pipe()
    arguments = (config.name, typed_read, shown_write)
    talk = threading.Thread(target=lab.hypervisor.open_console, args=arguments, daemon=True)
    talk.start()
    threading.Event().wait(0.5)
    subprocess.run([*virsh, "resume", config.name], check=True)
    shown = b""
    while b"hello" not in shown:
        shown += os.read(shown_read, 100)
    lab.hypervisor.ensure_stopped(config.name, grace=NOW)
    talk.join(10)
    assert not talk.is_alive()
    for descriptor in (shown_read, shown_write, typed_read, typed_write):
        os.close(descriptor)


def test_free_memory_is_part_of_the_hosts_memory(lab):
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < lab.hypervisor.host_free_memory() <= total


def test_no_daemon_at_the_address_is_said_at_once(tmp_path):
    socket_path = tmp_path / "none"
    uri = f"qemu+unix:///system?socket={socket_path}"
    with pytest.raises(HostError, match="does not answer") as caught:
        Hypervisor(uri, patience=FOR_EVER).list_domains(tmp_path)
    assert "labctl doctor" in caught.value.hint
