"""Rolling upgrades of real VMs: good images, bad images, and people in between."""

import signal

import pytest

from tests.e2e.harness import HEALTH, checksum, wait_for, write_payload

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
COUNTING = {"inline": "#!/bin/sh\n. /etc/labctl-image\necho $IMAGE_VERSION >>/data/runs\n"}
EXTENSION = {"name": "mark", "script": "#!/bin/sh\necho ext >>/data/runs\n"}
FULL = {
    "dataDisks": DATA,
    "customData": COUNTING,
    "extensions": [EXTENSION],
    "health": HEALTH,
}


@pytest.fixture
def roll(lab, request):
    """A fresh scale set of two on 1.0.0."""
    lab.apply("roll", capacity=2, **FULL)
    yield "roll"
    lab.remove("roll")


def test_an_upgrade_replaces_os_disks_batch_by_batch_and_keeps_data(lab, roll):
    before = {name: write_payload(lab, name) for name in ("roll_0", "roll_1")}
    plan = lab.json("upgrade", "plan", "roll", "--version", "1.1.0")
    assert [batch["instances"] for batch in plan["batches"]] == [["roll_0"], ["roll_1"]]
    lab.run("upgrade", "start", "roll", "--version", "1.1.0")
    assert lab.versions("roll") == ["1.1.0", "1.1.0"]
    for name, payload in before.items():
        assert checksum(lab, name) == payload
        assert lab.ask(name, "cat /data/runs").split() == ["1.0.0", "ext", "1.1.0", "ext"]
    status = lab.json("upgrade", "status", "roll")
    assert status["runningStatus"]["code"] == "Completed"
    assert status["progress"] == {
        "successfulInstanceCount": 2,
        "failedInstanceCount": 0,
        "inProgressInstanceCount": 0,
        "pendingInstanceCount": 0,
    }
    assert all(member["downtime"] > 0 for member in status["members"])
    # The old OS disks are gone, nothing else is left over.
    assert lab.files("roll") == sorted(
        f"roll_{n}.{suffix}"
        for n in (0, 1)
        for suffix in ("console.log", "data-data.qcow2", "g2.iso", "g2.qcow2")
    )
    # Once more: nothing to do, and it says so.
    again = lab.run("upgrade", "start", "roll", "--version", "1.1.0")
    assert "nothing to upgrade" in again.stdout + again.stderr


def test_a_bad_image_stops_after_the_first_batch_with_the_first_instance_restored(
    lab, roll, broken
):
    version = broken("unhealthy")
    before = write_payload(lab, "roll_0")
    untouched = lab.ask("roll_1", "cat /proc/sys/kernel/random/boot_id")
    failed = lab.run("upgrade", "start", "roll", "--version", version, "--rollback", expect=1)
    assert "MaxUnhealthyUpgraded" in failed.stderr or "unhealthy" in failed.stderr
    assert lab.versions("roll") == ["1.0.0", "1.0.0"]
    assert {row["health"] for row in lab.instances("roll").values()} == {"Healthy"}
    assert checksum(lab, "roll_0") == before
    assert lab.ask("roll_1", "cat /proc/sys/kernel/random/boot_id") == untouched
    # Custom data ran once on the bad disk, and not again on the restored one.
    assert lab.ask("roll_0", "cat /data/runs").split() == ["1.0.0", "ext", version, "ext"]
    history = lab.json("upgrade", "history", "roll")
    assert history[0]["runningStatus"]["code"] == "Faulted"
    assert history[0]["startedBy"] == "User"
    assert history[0]["rollbackInfo"]["successfullyRolledbackInstanceCount"] == 1
    shown = lab.json("upgrade", "show", lab.json("upgrade", "status", "roll")["id"])
    evidence = shown["evidence"]["roll_0"]
    assert evidence["rung"] == "health"
    assert any("503" in sample["detail"] for sample in evidence["healthSamples"])
    assert evidence["extensions"][0]["exitCode"] == 0
    assert evidence["serialTail"]
    text = lab.run("upgrade", "show", shown["id"]).stdout
    assert "roll_0 failed at health" in text


def test_a_manual_upgrade_restores_nothing_without_being_told_to(lab, roll, broken):
    version = broken("unhealthy")
    lab.run("upgrade", "start", "roll", "--version", version, expect=1)
    assert lab.versions("roll") == [version, "1.0.0"]
    status = lab.json("upgrade", "status", "roll")
    assert [member["state"] for member in status["members"]] == ["Failed", "Pending"]
    # One of two is unhealthy now, which is more than 20 %: the next start is refused.
    refused = lab.run("upgrade", "start", "roll", "--version", "1.1.0", expect=4)
    assert "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade" in refused.stderr
    assert lab.versions("roll") == [version, "1.0.0"]


@pytest.mark.parametrize("fault", ["panic", "no-boot", "poweroff"])
def test_an_image_that_does_not_come_up_is_noticed_and_rolled_back(lab, broken, fault):
    version = broken(fault)
    boot = {"boot": "25s", "customData": "60s", "shutdown": "20s"}
    # The one that switches itself off does so while this runs, before it could be called healthy.
    slow = {"name": "slow", "script": "#!/bin/sh\n[ ! -e /etc/late ] || sleep 60\n"}
    late = {"inline": "#!/bin/sh\ngrep -q IMAGE_VERSION=1 /etc/labctl-image || touch /etc/late\n"}
    lab.apply("dark", health=HEALTH, timeouts=boot, extensions=[slow], customData=late)
    try:
        failed = lab.run("upgrade", "start", "dark", "--version", version, "--rollback", expect=1)
        assert "run: labctl upgrade show" in failed.stderr
        assert lab.versions("dark") == ["1.0.0"]
        assert lab.instances("dark")["dark_0"]["health"] == "Healthy"
        upgrade = lab.json("upgrade", "status", "dark")
        evidence = lab.json("upgrade", "show", upgrade["id"])["evidence"]["dark_0"]
        if fault == "panic":
            assert "panic" in evidence["reason"].lower()
        if fault == "poweroff":
            assert "off by itself" in evidence["reason"]
        assert evidence["imageVersion"] == version
    finally:
        lab.remove("dark")


def test_scaling_while_an_upgrade_runs_ends_with_every_instance_upgraded(lab):
    lab.apply("grow", capacity=2, health=HEALTH)
    try:
        upgrade = lab.spawn("upgrade", "start", "grow", "--version", "1.1.0")
        wait_for(
            lambda: "batch 1" in lab.run("events", "grow").stdout, seconds=60, what="first batch"
        )
        # A second command at the same time: it writes its wish and watches the first one work.
        scaled = lab.run("scale", "grow", 3)
        assert "watching" in scaled.stdout + scaled.stderr or upgrade.poll() is not None
        output, _ = upgrade.communicate(timeout=300)
        assert upgrade.returncode == 0, output
        assert lab.versions("grow") == ["1.1.0"] * 3
    finally:
        lab.remove("grow")


def test_an_interrupted_upgrade_goes_on_with_the_same_command(lab):
    lab.apply("cut", health=HEALTH)
    try:
        words = ("upgrade", "start", "cut", "--version", "1.1.0")
        upgrade = lab.spawn(*words)
        wait_for(
            lambda: "powered on with image 1.1.0" in lab.run("events", "cut").stdout,
            seconds=60,
            what="the swap",
        )
        upgrade.send_signal(signal.SIGINT)
        output, _ = upgrade.communicate(timeout=60)
        assert upgrade.returncode == 130, output
        lab.run(*words)
        assert lab.versions("cut") == ["1.1.0"]
        assert len(lab.json("upgrade", "history", "cut")) == 1
    finally:
        lab.remove("cut")


def test_cancel_ends_the_upgrade_after_its_batch(lab):
    lab.apply("halt", capacity=2, health=HEALTH)
    try:
        upgrade = lab.spawn("upgrade", "start", "halt", "--version", "1.1.0")
        wait_for(
            lambda: "batch 1" in lab.run("events", "halt").stdout, seconds=60, what="first batch"
        )
        lab.run("upgrade", "cancel", "halt")
        output, _ = upgrade.communicate(timeout=120)
        assert upgrade.returncode == 1, output
        assert lab.versions("halt") == ["1.1.0", "1.0.0"]
        assert lab.json("upgrade", "status", "halt")["runningStatus"]["code"] == "Cancelled"
    finally:
        lab.remove("halt")
