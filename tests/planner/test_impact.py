"""What a change of the model needs."""

from datetime import timedelta

import pytest

from labctl.model.cluster import ClusterManager
from labctl.model.health_source import ApplicationHealth, Health, HealthProbe, Protocol
from labctl.model.machine import DataDisk, ImageReference, MachineSize, OsDisk
from labctl.model.setup import CustomData, Extension
from labctl.model.spec import Network, ScaleSetSpec, Timeouts
from labctl.model.windows import WindowsConfiguration
from labctl.planner.impact import LIVE_FIELDS, Impact, Need, find_impacts, find_need
from tests.planner.world import MIB, make_policy, make_spec

APP = Extension(name="app", script="true")
DATA = DataDisk(name="data", size="32MiB", file_system="ext4", mount_point="/data")
OTHER = DataDisk(name="other", size="32MiB")


def tcp(port: int) -> Health:
    return Health(probe=HealthProbe(protocol=Protocol.TCP, port=port))


def agent(port: int) -> Health:
    return Health(application_health=ApplicationHealth(port=port, request_path="/"))


NAT = Network(type="nat")
AGENT = Extension(name="agent", script="true", settings={"durabilityLevel": "Bronze"})
MANAGER = ClusterManager(durability_level="Bronze", extension="agent")
CASES = [
    ({}, {"capacity": 3}, Need.NOTHING),
    ({}, {"timeouts": Timeouts(shutdown=timedelta(seconds=5))}, Need.NOTHING),
    ({}, {"upgrade_policy": make_policy(max_batch_instance_percent=50)}, Need.NOTHING),
    ({}, {"extensions_time_budget": timedelta(minutes=20)}, Need.NOTHING),
    ({}, {"size": MachineSize(vcpus=2)}, Need.RESTART),
    ({}, {"custom_data": CustomData(inline="#!/bin/sh")}, Need.OS_SWAP),
    ({}, {"image": ImageReference(definition="tiny", version="1.1.0")}, Need.OS_SWAP),
    ({}, {"os_disk": OsDisk(size="1GiB")}, Need.OS_SWAP),
    ({"ssh_keys": ()}, {"ssh_keys": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",)}, Need.OS_SWAP),
    ({}, {"windows_configuration": WindowsConfiguration()}, Need.OS_SWAP),
    ({}, {"network": NAT}, Need.RECREATE),
    ({}, {"zones": ("1", "2")}, Need.RECREATE),
    ({"zones": ("1", "2")}, {"zones": ("2", "1")}, Need.RECREATE),
    ({}, {"fault_domain_count": 2}, Need.RECREATE),
    ({}, {"update_domain_count": 4}, Need.RECREATE),
    ({"extensions": (AGENT,)}, {"cluster_manager": MANAGER}, Need.NOTHING),
    ({}, {"data_disks": (DATA,)}, Need.RESTART),
    ({"data_disks": (DATA,)}, {"data_disks": ()}, Need.RECREATE),
    (
        {"data_disks": (DATA,)},
        {"data_disks": (DATA.model_copy(update={"size": 64 * MIB}),)},
        Need.RECREATE,
    ),
    (
        {"data_disks": (DATA,)},
        {"data_disks": (DATA.model_copy(update={"mount_point": "/srv"}), OTHER)},
        Need.OS_SWAP,
    ),
    ({"data_disks": (DATA, OTHER)}, {"data_disks": (OTHER, DATA)}, Need.NOTHING),
    ({"extensions": ()}, {"extensions": (APP,)}, Need.RERUN_EXTENSIONS),
    ({"extensions": (APP,)}, {"extensions": ()}, Need.NOTHING),
    (
        {"extensions": (APP,)},
        {"extensions": (APP.model_copy(update={"script": "false"}),)},
        Need.RERUN_EXTENSIONS,
    ),
    (
        {"extensions": (APP,)},
        {"extensions": (APP.model_copy(update={"timeout": timedelta(seconds=5)}),)},
        Need.NOTHING,
    ),
    ({"health": agent(80)}, {"health": agent(81)}, Need.OS_SWAP),
    ({"health": Health()}, {"health": agent(80)}, Need.OS_SWAP),
    ({"health": tcp(80)}, {"health": tcp(81)}, Need.RESTART),
    ({"health": Health()}, {"health": tcp(80)}, Need.RESTART),
    ({"health": tcp(80), "network": NAT}, {"health": tcp(81), "network": NAT}, Need.NOTHING),
]


@pytest.mark.parametrize(("before", "after", "need"), CASES)
def test_each_change_needs_what_brings_it_into_force(before, after, need):
    values = dict(after)
    capacity = values.pop("capacity", 2)
    new = make_spec(capacity, **(before | values))
    (impact,) = find_impacts(make_spec(2, **before), new)
    assert impact.need is need
    assert impact.reason


def test_the_same_spec_needs_nothing():
    assert find_impacts(make_spec(2), make_spec(2)) == ()
    assert find_need(()) is Need.NOTHING


def test_a_whole_change_needs_the_most_that_one_of_its_fields_does():
    new = make_spec(3, size=MachineSize(vcpus=2), extensions=(Extension(name="app", script="new"),))
    impacts = find_impacts(make_spec(2), new)
    assert [(i.field, i.need) for i in impacts] == [
        ("capacity", Need.NOTHING),
        ("size", Need.RESTART),
        ("extensions", Need.RERUN_EXTENSIONS),
    ]
    assert find_need(impacts) is Need.RESTART
    assert [need.rank for need in Need] == [0, 1, 2, 3, 4]


def test_extensions_that_changed_and_those_that_came_are_named():
    other = Extension(name="other", script="true")
    old = make_spec(1, extensions=(APP, other))
    new = make_spec(
        1,
        extensions=(
            other,
            APP.model_copy(update={"script": "new"}),
            Extension(name="third", script="x"),
        ),
    )
    assert find_impacts(old, new) == (
        Impact(
            field="extensions",
            need=Need.RERUN_EXTENSIONS,
            reason="to run: app, third",
            reruns=("app", "third"),
        ),
    )


def test_a_field_that_nobody_thought_of_is_brought_by_a_new_os_disk(monkeypatch):
    class Wider(ScaleSetSpec):
        novelty: int = 0

    monkeypatch.setattr("labctl.planner.impact.ScaleSetSpec", Wider)
    old = Wider(**dict(make_spec(1)))
    (impact,) = find_impacts(old, old.model_copy(update={"novelty": 1}))
    assert (impact.field, impact.need) == ("novelty", Need.OS_SWAP)


def test_live_fields_are_fields():
    assert set(ScaleSetSpec.model_fields) >= LIVE_FIELDS
