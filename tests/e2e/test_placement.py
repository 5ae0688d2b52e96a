"""Zones and a cluster: the order in which real VMs are upgraded and leave."""

import sys

import pytest

from tests.e2e.harness import Lab, share_build_cache, state_directory
from tests.e2e.serving import AT_ONCE, serving, wait_for_end

HOOKS = ("drain", "undrain")
AGENT = {
    "name": "agent",
    # As the agent of a cluster would, it is told its level by its settings.
    "script": "#!/bin/sh\ncat $LABCTL_SETTINGS_DIR/settings/durabilityLevel >/etc/level\n",
    "settings": {"durabilityLevel": "Silver"},
}


def tell(word):
    """A command that tells the cluster's manager about an instance: here a file of lines."""
    code = (
        "import os, sys; print(sys.argv[1], os.environ['LABCTL_INSTANCE'], "
        "file=open(sys.argv[2], 'a'))"
    )
    return {"command": [sys.executable, "-c", code, word, "LOG"]}


SPEC = {
    "capacity": 3,
    "image": {"definition": "spread", "version": "latest"},
    # place_0 and place_2 in b, place_1 in a; by ordinals alone the order would be another one.
    "zones": ["b", "a"],
    "updateDomainCount": 2,
    "extensions": [AGENT],
    "clusterManager": {"durabilityLevel": "Silver", "extension": "agent"},
    "upgradePolicy": {
        "healthTimeout": "15s",
        "hooks": {"drain": tell("drain"), "undrain": tell("undrain")},
        "automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True},
    },
}


@pytest.fixture(scope="module")
def lab():
    """A lab of its own: the daemon works on every scale set that it finds."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        made.build("1.0.0", "--publish", definition="spread")
        yield made
        made.remove("place")


def test_a_cluster_is_upgraded_by_zones_and_update_domains_and_shrinks_evenly(lab, tmp_path):
    log = tmp_path / "cluster.log"
    for hook in SPEC["upgradePolicy"]["hooks"].values():
        hook["command"][-1] = str(log)
    bronze = {"durabilityLevel": "Bronze"}
    path = lab.spec(
        "place",
        **SPEC
        | {
            "extensions": [AGENT | {"settings": bronze}],
            "clusterManager": SPEC["clusterManager"] | bronze,
        },
    )
    assert "not 'Bronze'" in lab.run("apply", path, expect=2).stderr
    path = lab.spec("place", **SPEC | {"extensions": [AGENT | {"settings": bronze}]})
    refused = lab.run("apply", path, expect=2).stderr
    line = path.read_text().splitlines().index("    durabilityLevel: Bronze") + 1
    assert f"{line}:22: extensions[0].settings.durabilityLevel: must be 'Silver'" in refused

    lab.apply("place", **SPEC)  # no health source: the cluster knows how its instances are
    rows = lab.instances("place")
    places = {name: (row["zone"], row["updateDomain"]) for name, row in rows.items()}
    assert places == {"place_0": ("b", 0), "place_1": ("a", 0), "place_2": ("b", 1)}
    assert "ZONE  UPDATE DOMAIN" in lab.run("instance", "list", "place").stdout
    assert lab.json("instance", "show", "place_2")["faultDomain"] == 0
    assert "placed: zone b, fault domain 0, update domain 1" in lab.run("why", "place_2").stdout
    assert lab.ask("place_1", "cat /etc/level") == "Silver"
    moved = lab.run("apply", lab.spec("place", **SPEC | {"zones": ["a", "b"]}), expect=4)
    assert "zones of scale set 'place' cannot change" in moved.stderr

    lab.build("1.1.0", "--publish", definition="spread")
    batches = lab.json("upgrade", "plan", "place")["batches"]
    assert [(b["zone"], b["updateDomain"], b["instances"]) for b in batches] == [
        ("b", 0, ["place_0"]),
        ("b", 1, ["place_2"]),
        ("a", 0, ["place_1"]),
    ]
    with serving(lab, *AT_ONCE):
        ended = wait_for_end(lab, "place")
        assert (ended["runningStatus"]["code"], ended["startedBy"]) == ("Completed", "Platform")
        members = lab.json("upgrade", "status", "place")["members"]
        assert {m["instance"]: m["batch"] for m in members} == {
            "place_0": 1,
            "place_2": 2,
            "place_1": 3,
        }
        told = lab.run("events", "place").stdout
        assert "batch 2 of 3 to 1.1.0, zone b, update domain 1" in told
        words = [f"{word} {name}" for name in ("place_0", "place_2", "place_1") for word in HOOKS]
        assert log.read_text().splitlines() == words
        # By ordinals place_1 would leave, and zone a be empty.
        lab.run("instance", "protect", "place_2", "--from-scale-in")
        lab.run("scale", "place", "2")
        assert lab.domains("place") == ["place_1", "place_2"]
        assert "capacity is 2, present are 3, 2 in zone b" in lab.run("events", "place").stdout
        assert log.read_text().splitlines()[len(words) :] == ["drain place_0"]
