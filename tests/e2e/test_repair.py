"""Protection, reimage and automatic repairs of real VMs."""

import pytest

from tests.e2e.harness import HEALTH, checksum, wait_for, write_payload

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
COUNTING = {"inline": "#!/bin/sh\necho ran >>/data/custom-data.log\n"}
SPEC = {"capacity": 2, "dataDisks": DATA, "customData": COUNTING, "health": HEALTH}


def repairs(action: str, *, enabled: bool = True) -> dict:
    # Seconds are labctl's own extension; Azure begins at ten minutes.
    return {"enabled": enabled, "gracePeriod": "5s", "repairAction": action}


@pytest.fixture(scope="module")
def mend(lab):
    """Two instances, repairs by restart."""
    spec = SPEC | {"automaticRepairsPolicy": repairs("Restart")}
    lab.apply("mend", **spec)
    yield spec
    lab.remove("mend")


def make_ill(lab, name: str) -> None:
    """Make the application fail, until the agent in the guest has noticed."""
    lab.ask(name, "app-health fail")
    wait_for(
        lambda: lab.instances("mend")[name]["health"] == "Unhealthy", seconds=60, what="illness"
    )


def boot_id(lab, name: str) -> str:
    return lab.ask(name, "cat /proc/sys/kernel/random/boot_id")


def test_an_unhealthy_instance_is_restarted_and_loses_nothing(lab, mend):
    before = write_payload(lab, "mend_0")
    boots = [boot_id(lab, "mend_0"), boot_id(lab, "mend_1")]
    make_ill(lab, "mend_0")
    applied = lab.apply("mend", **mend)
    assert "2 healthy" in applied.stdout
    assert "repair 1: Restart, try 1 of 3; unhealthy: HTTP 503" in applied.stdout
    assert "repair 1 healthy: healthy after restart" in applied.stdout
    assert boot_id(lab, "mend_0") != boots[0]
    assert boot_id(lab, "mend_1") == boots[1]
    assert checksum(lab, "mend_0") == before
    assert lab.instances("mend")["mend_0"]["osDisk"] == 1
    (row,) = lab.json("repairs", "history", "mend")
    assert (row["instance"], row["action"], row["outcome"]) == ("mend_0", "Restart", "Healthy")
    assert "nothing to change" in lab.apply("mend", **mend).stdout


def test_the_action_changes_while_repairs_are_off(lab, mend):
    path = lab.spec("mend", **SPEC, automaticRepairsPolicy=repairs("Reimage"))
    assert "cannot change while repairs are enabled" in lab.run("apply", path, expect=4).stderr
    off = SPEC | {"automaticRepairsPolicy": repairs("Restart", enabled=False)}
    lab.apply("mend", **off)
    assert lab.json("show", "mend")["automaticRepairs"]["serviceState"] == "NotRunning"
    lab.apply("mend", **SPEC, automaticRepairsPolicy=repairs("Reimage"))
    assert lab.json("repairs", "status", "mend")["serviceState"] == "Running"


def test_suspended_and_protected_ones_are_not_repaired(lab, mend):
    spec = SPEC | {"automaticRepairsPolicy": repairs("Reimage")}
    path = lab.spec("mend", **spec)
    make_ill(lab, "mend_1")
    lab.run("repairs", "suspend", "mend", "--reason", "a bad day")
    assert lab.json("show", "mend")["automaticRepairs"]["suspendedReason"] == "a bad day"
    lab.run("apply", path, expect=1)
    assert "suspended (a bad day)" in lab.run("why", "mend_1").stdout
    lab.run("repairs", "resume", "mend")
    lab.run("instance", "protect", "mend_1", "--from-scale-in")
    lab.run("apply", path, expect=1)
    assert "not repaired: protected" in lab.run("why", "mend_1").stdout
    lab.run("instance", "unprotect", "mend_1")
    before = write_payload(lab, "mend_1")
    lab.run("apply", path)
    row = lab.instances("mend")["mend_1"]
    assert (row["osDisk"], row["imageVersion"], row["health"]) == (2, "1.0.0", "Healthy")
    assert checksum(lab, "mend_1") == before
    assert lab.ask("mend_1", "cat /data/custom-data.log").split() == ["ran", "ran"]
    assert lab.json("repairs", "history", "mend")[0]["action"] == "Reimage"


def test_an_instance_is_replaced_and_keeps_its_data_disk(lab, mend):
    off = SPEC | {"automaticRepairsPolicy": repairs("Reimage", enabled=False)}
    lab.apply("mend", **off)
    before = write_payload(lab, "mend_0")
    uuid = lab.instances("mend")["mend_0"]["uuid"]
    make_ill(lab, "mend_0")
    lab.apply("mend", **SPEC, automaticRepairsPolicy=repairs("Replace"))
    row = lab.instances("mend")["mend_0"]
    assert (row["osDisk"], row["health"]) == (1, "Healthy")
    assert row["uuid"] != uuid
    assert checksum(lab, "mend_0") == before


def test_scale_in_and_upgrades_spare_the_protected_and_commands_for_it_work(lab, mend):
    lab.apply("mend", **SPEC, automaticRepairsPolicy=repairs("Replace", enabled=False))
    lone = lab.run("instance", "protect", "mend_1", "--from-scale-set-actions", expect=4)
    assert "needs protection from scale-in" in lone.stderr
    both = ("--from-scale-in", "--from-scale-set-actions")
    lab.run("instance", "protect", "mend_1", *both)
    shown = lab.json("instance", "show", "mend_1")
    assert shown["protectFromScaleIn"]
    assert shown["protectFromScaleSetActions"]
    assert "PROTECTED" in lab.run("instance", "list", "mend").stdout
    refused = lab.run("scale", "mend", "0", expect=4)
    assert "protected: mend_1" in refused.stderr
    lab.run("upgrade", "start", "mend", "--version", "1.1.0")
    assert lab.versions("mend") == ["1.1.0", "1.0.0"]
    members = lab.json("upgrade", "status", "mend")["members"]
    assert [(m["state"], m["message"]) for m in members][1] == (
        "Skipped",
        "protected from scale set actions",
    )
    before, boot = write_payload(lab, "mend_1"), boot_id(lab, "mend_1")
    lab.run("instance", "reimage", "mend_1")
    row = lab.instances("mend")["mend_1"]
    assert (row["imageVersion"], row["health"]) == ("1.0.0", "Healthy")
    assert boot_id(lab, "mend_1") != boot
    assert checksum(lab, "mend_1") == before
    lab.run("scale", "mend", "1")
    assert lab.domains("mend") == ["mend_1"]
