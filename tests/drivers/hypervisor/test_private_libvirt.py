"""What must not be tried on the host's libvirt: restarts of the daemon, networks."""

import queue
import re
import threading
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from uuid import uuid4

import psutil
import pytest

from labctl.drivers.domain import NatNetwork
from labctl.drivers.hypervisor import DomainEvent, LifecycleKind, Stopped
from labctl.drivers.network import DhcpHost, nat_network
from labctl.errors import HostError, RefusedError
from labctl.model.instance import Power

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def lab(make_lab, private_libvirt):
    lab = make_lab(private_libvirt.uri)
    yield lab
    for name in lab.names:
        lab.hypervisor.ensure_undefined(name)
    lab.names.clear()


def test_calls_and_events_survive_a_killed_libvirtd(lab, private_libvirt):
    events: queue.Queue[DomainEvent] = queue.Queue()
    lab.hypervisor.subscribe(events.put)
    config = lab.start()
    private_libvirt.kill()
    back = threading.Timer(1, private_libvirt.start)
    back.start()
    seen = lab.hypervisor.list_domains(lab.directory)  # waits for it
    assert seen[config.name].power is Power.RUNNING
    while events.get(timeout=20).kind is not LifecycleKind.RESYNC:
        pass
    stop = lab.hypervisor.ensure_stopped(config.name, grace=timedelta(0))
    assert stop is Stopped.FORCED
    # libvirtd may swallow the end of a domain that it is just taking up again, so another is asked.
    other = lab.make()
    lab.hypervisor.ensure_defined(other)
    while events.get(timeout=20) != DomainEvent(
        name=other.name, kind=LifecycleKind.DEFINED, detail=""
    ):
        pass
    assert lab.hypervisor.list_domains(lab.directory)[config.name].power is not Power.RUNNING
    back.join()


def test_a_stop_that_waits_survives_a_killed_libvirtd(lab, private_libvirt):
    config = lab.start("obeys")
    private_libvirt.kill()
    back = threading.Timer(1, private_libvirt.start)
    back.start()
    stop = lab.hypervisor.ensure_stopped(config.name, grace=timedelta(seconds=20))
    assert stop is Stopped.GRACEFUL
    back.join()


def test_a_libvirtd_that_stays_away_is_reported_and_nothing_is_lost(lab, private_libvirt):
    config = lab.start()
    impatient = type(lab.hypervisor)(lab.hypervisor.uri, patience=timedelta(seconds=1))
    impatient.list_domains(lab.directory)
    private_libvirt.kill()
    with pytest.raises(HostError, match="does not answer") as caught:
        impatient.list_domains(lab.directory)
    assert "labctl doctor" in caught.value.hint
    private_libvirt.start()
    seen = lab.hypervisor.list_domains(lab.directory)
    assert seen[config.name].power is Power.RUNNING
    impatient.close()


def test_what_died_while_libvirtd_was_away_is_off_and_starts_again(lab, private_libvirt):
    config = lab.start()
    # libvirt calls such a domain "crashed"; there is nothing left to switch off.
    (emulator,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"guest={config.name},debug-threads=on" in (process.info["cmdline"] or ())
    ]
    private_libvirt.kill()
    emulator.kill()
    emulator.wait(20)
    private_libvirt.start()
    for _ in range(200):  # it answers before it has looked after its domains
        seen = lab.hypervisor.list_domains(lab.directory)[config.name]
        if seen.power is not Power.RUNNING:
            break
        threading.Event().wait(0.1)
    assert (seen.power, seen.reason) == (Power.STOPPED, "crashed")
    assert lab.hypervisor.ensure_stopped(config.name, grace=timedelta(0)) is Stopped.WAS_OFF
    assert lab.hypervisor.ensure_started(config.name)


def host(number):
    return DhcpHost(
        mac=f"52:54:00:00:00:{number:02x}",
        address=IPv4Address("10.99.7.0") + number,
        hostname=f"web-{number}",
    )


def test_a_network_follows_its_hosts_while_it_runs(lab, private_libvirt):
    hypervisor = lab.hypervisor
    empty = nat_network(lab.directory, "web", IPv4Network("10.99.7.0/24"))
    assert [hypervisor.ensure_network(empty) for _ in range(2)] == [True, False]
    private_libvirt.run("ip", "link", "show", empty.bridge)
    hosts = replace(empty, hosts=(host(2), host(3)))
    assert [hypervisor.ensure_network(hosts) for _ in range(2)] == [True, False]
    file = "/var/lib/libvirt/dnsmasq/labctl-web.hostsfile"
    assert re.findall(r"10\.99\.7\.\d+", private_libvirt.run("cat", file)) == [
        "10.99.7.2",
        "10.99.7.3",
    ]
    # An address passes to another interface.
    moved = replace(host(4), address=host(2).address)
    changed = replace(empty, hosts=(host(3), moved))
    assert [hypervisor.ensure_network(changed) for _ in range(2)] == [True, False]
    assert "52:54:00:00:00:04,10.99.7.2,web-4" in private_libvirt.run("cat", file)
    absent = [hypervisor.ensure_network_absent(empty.name, uuid=empty.uuid) for _ in range(2)]
    assert absent == [True, False]


def test_a_domain_joins_the_network_of_its_scale_set(lab, private_libvirt):
    network = nat_network(lab.directory, "web", IPv4Network("10.99.7.0/24"), (host(2),))
    lab.hypervisor.ensure_network(network)
    lab.start(network=NatNetwork(name=network.name), mac=host(2).mac)
    assert "vnet" in private_libvirt.run("ip", "link", "show", "master", network.bridge)


def test_a_foreign_network_and_a_changed_subnet_are_refused(lab):
    hypervisor = lab.hypervisor
    network = nat_network(lab.directory, "web", IPv4Network("10.99.7.0/24"))
    hypervisor.ensure_network(network)
    with pytest.raises(RefusedError, match="not labctl's here"):
        hypervisor.ensure_network(replace(network, uuid=uuid4()))
    with pytest.raises(RefusedError, match="not labctl's here"):
        hypervisor.ensure_network_absent(network.name, uuid=uuid4())
    with pytest.raises(RefusedError, match="cannot be changed"):
        hypervisor.ensure_network(replace(network, subnet=IPv4Network("10.99.8.0/24")))
    assert not hypervisor.ensure_network(network)
