"""Scale sets on a libvirt network of their own, inside a network namespace."""

import ipaddress
import json

import pytest

from tests.e2e.harness import HEALTH, checksum, write_payload

pytestmark = pytest.mark.root

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
PROBE = {"probe": {"protocol": "http", "port": 8080, "requestPath": "/health"}}


def networks(libvirt):
    return libvirt.run("virsh", "-q", "-c", libvirt.uri, "net-list", "--all", "--name").split()


def bridges(libvirt):
    links = json.loads(libvirt.run("ip", "-json", "link", "show", "type", "bridge"))
    return [link["ifname"] for link in links]


def addresses(lab, scale_set):
    return {name: row["ssh"].rpartition(":")[0] for name, row in lab.instances(scale_set).items()}


def test_instances_of_a_nat_network_keep_their_addresses_through_an_upgrade(
    private_lab, private_libvirt
):
    lab = private_lab
    lab.apply("net", capacity=2, network={"type": "nat"}, health=HEALTH, dataDisks=DATA)
    before = addresses(lab, "net")
    assert len(set(before.values())) == 2
    for name, address in before.items():
        assert ipaddress.ip_address(address) in ipaddress.ip_network("10.87.0.0/16")
        assert f"inet {address}/" in lab.ask(name, "ip -4 addr")
    # Instances reach each other, which those of network `user` do not.
    assert lab.ask("net_0", f"wget -q -O - http://{before['net_1']}:8080/health") == "ok"
    payload = write_payload(lab, "net_0")
    assert networks(private_libvirt) == ["labctl-net"]
    [bridge] = bridges(private_libvirt)
    assert bridge.startswith("lab-")

    lab.run("upgrade", "start", "net", "--version", "1.1.0")
    assert lab.versions("net") == ["1.1.0", "1.1.0"]
    assert addresses(lab, "net") == before
    for name, address in before.items():
        assert f"inet {address}/" in lab.ask(name, "ip -4 addr")
    assert checksum(lab, "net_0") == payload

    # A new instance joins the running network, and one that leaves takes nothing along.
    lab.run("scale", "net", 3)
    joined = addresses(lab, "net")
    assert {name: joined[name] for name in before} == before
    assert len(set(joined.values())) == 3
    lab.run("scale", "net", 1)
    assert addresses(lab, "net") == {"net_0": before["net_0"]}

    lab.run("delete", "net", "--yes")
    assert networks(private_libvirt) == []
    assert bridges(private_libvirt) == []


def test_a_probe_of_the_controller_reaches_instances_in_the_subnet_of_the_spec(
    private_lab, private_libvirt
):
    lab = private_lab
    lab.apply("asked", network={"type": "nat", "subnet": "10.99.5.0/24"}, health=PROBE)
    row = lab.instances("asked")["asked_0"]
    assert row["health"] == "Healthy"
    assert ipaddress.ip_address(row["ssh"].rpartition(":")[0]) in ipaddress.ip_network(
        "10.99.5.0/24"
    )
    events = lab.json("events", "asked")
    assert any("200" in event["message"] for event in events if event["kind"] == "health")
    # Two networks must not overlap, whoever chose them.
    refused = lab.run(
        "apply", lab.spec("overlap", network={"type": "nat", "subnet": "10.99.4.0/22"}), expect=4
    )
    assert "10.99.5.0/24" in refused.stderr
    assert [row["name"] for row in lab.json("list")] == ["asked"]
    lab.run("delete", "asked", "--yes")
    assert networks(private_libvirt) == []
    assert bridges(private_libvirt) == []
