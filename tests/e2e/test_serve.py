"""The daemon upgrades real VMs by itself, and leaves alone what it should."""

from collections.abc import Iterator

import pytest

from tests.e2e.harness import (
    HEALTH,
    Lab,
    checksum,
    share_build_cache,
    state_directory,
    wait_for,
    write_payload,
)
from tests.e2e.serving import AUTOMATIC, LONG, events, history, serving, wait_for_end

UNHEALTHY_UPGRADED = "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own: the daemon works on every scale set that it finds."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        yield made
        for row in made.json("list"):
            made.remove(row["name"])


def make(lab: Lab, name: str, capacity: int, **policy) -> None:
    """A scale set of `capacity` on version 1.0.0 of an image definition of its own."""
    lab.build("1.0.0", "--publish", definition=name)
    apply(lab, name, capacity, **policy)


def apply(lab: Lab, name: str, capacity: int, **policy) -> None:
    lab.apply(
        name,
        capacity=capacity,
        image={"definition": name, "version": "latest"},
        dataDisks=DATA,
        health=HEALTH,
        upgradePolicy={"healthTimeout": "15s", **AUTOMATIC, **policy},
    )


def test_a_set_of_five_takes_a_published_version_with_no_command_given(lab):
    make(lab, "five", 5)
    try:
        before = {f"five_{n}": write_payload(lab, f"five_{n}") for n in (0, 4)}
        with serving(lab):
            lab.build("1.1.0", "--publish", definition="five")
            ended = wait_for_end(lab, "five")
            assert ended["runningStatus"]["code"] == "Completed"
            assert ended["startedBy"] == "Platform"
            assert ended["progress"]["successfulInstanceCount"] == 5
            assert lab.versions("five") == ["1.1.0"] * 5
            assert {name: checksum(lab, name) for name in before} == before
            # One by one: five instances are five batches.
            assert "batch 5 of 5" in events(lab, "five")
            watched = lab.json("image", "watch", "five")[0]
            assert (watched["takes"], watched["latest"]) == (None, "five/1.1.0")
            assert "up to date" in watched["why"]
            # A command works beside the daemon: it asks, and the daemon does.
            lab.run("scale", "five", "1")
            assert lab.domains("five") == ["five_0"]
            second = lab.run("serve", expect=4)
            assert "another labctl serve" in second.stderr
        # Nothing was left half done: the instance runs on without the daemon.
        assert lab.instances("five")["five_0"]["health"] == "Healthy"
    finally:
        lab.remove("five")


def test_what_is_excluded_or_not_replicated_here_is_left_alone_and_watch_says_why(lab):
    make(lab, "calm", 1)
    try:
        lab.build("1.1.0", definition="calm")
        lab.build("1.2.0", definition="calm")
        lab.build("1.3.0", definition="calm")
        lab.run("image", "publish", "calm/1.1.0")
        lab.run("image", "exclude", "calm/1.1.0")
        lab.run("image", "publish", "calm/1.2.0", "--region", "elsewhere")
        lab.run("image", "publish", "calm/1.3.0", "--region", "local", "--region", "elsewhere")
        lab.run("image", "exclude", "calm/1.3.0", "--region", "local")
        with serving(lab):
            watched = lab.json("image", "watch", "calm")[0]
            assert watched["latest"] == "calm/1.0.0"
            assert watched["takes"] is None
            reasons = {each["version"]: each["reason"] for each in watched["passedOver"]}
            assert reasons == {
                "1.1.0": "excluded from latest",
                "1.2.0": "not replicated to region local (only to elsewhere)",
                "1.3.0": "excluded from latest in region local",
            }
            # A fresh wish goes through the daemon, so it has looked since then; still nothing.
            lab.run("instance", "restart", "calm_0")
            assert history(lab, "calm") == []
            # Replicated to this region, it is rolled out.
            lab.run("image", "replicate", "calm/1.2.0", "--region", "local")
            assert wait_for_end(lab, "calm")["runningStatus"]["code"] == "Completed"
            assert lab.versions("calm") == ["1.2.0"]
    finally:
        lab.remove("calm")


def test_opting_out_in_the_middle_ends_the_upgrade_before_the_next_batch(lab):
    make(lab, "choosy", 3)
    try:
        with serving(lab):
            lab.build("1.1.0", "--publish", definition="choosy")
            wait_for(lambda: "batch 1 of 3" in events(lab, "choosy"), seconds=LONG, what="a batch")
            apply(lab, "choosy", 3, automaticOSUpgradePolicy={"enableAutomaticOSUpgrade": False})
            ended = wait_for_end(lab, "choosy")
            assert ended["runningStatus"]["code"] == "Cancelled"
            assert "switched off" in events(lab, "choosy")
            assert sorted(lab.versions("choosy")) == ["1.0.0", "1.0.0", "1.1.0"]
            watched = lab.json("image", "watch", "choosy")[0]
            assert watched["why"] == "automatic OS upgrades are off"
            # Opting in again is a new beginning.
            apply(lab, "choosy", 3)
            assert wait_for_end(lab, "choosy", 2)["runningStatus"]["code"] == "Completed"
            assert lab.versions("choosy") == ["1.1.0"] * 3
    finally:
        lab.remove("choosy")


def test_a_bad_version_is_restored_in_its_first_batch_and_not_tried_again(lab):
    make(lab, "wary", 3)
    try:
        payload = write_payload(lab, "wary_0")
        untouched = {name: lab.ask(name, BOOT_ID) for name in ("wary_1", "wary_2")}
        with serving(lab):
            lab.build("2.0.0", "--set", "fault=unhealthy", "--publish", definition="wary")
            ended = wait_for_end(lab, "wary")
            assert ended["runningStatus"]["code"] == "Faulted"
            assert ended["startedBy"] == "Platform"
            assert ended["rollbackInfo"]["successfullyRolledbackInstanceCount"] == 1
            assert ended["error"]["code"] == UNHEALTHY_UPGRADED
            assert "unhealthy after the upgrade to 2.0.0: 1 of 1" in ended["error"]["message"]
            assert "not healthy within 15 s: HTTP 503" in ended["error"]["message"]
            assert lab.versions("wary") == ["1.0.0"] * 3
            assert checksum(lab, "wary_0") == payload
            assert {name: lab.ask(name, BOOT_ID) for name in untouched} == untouched
            watched = lab.json("image", "watch", "wary")[0]
            assert "ended Faulted" in watched["why"]
            lab.run("instance", "restart", "wary_2")  # the daemon has looked again
            assert len(history(lab, "wary")) == 1
            # A newer version mends it.
            lab.build("2.0.1", "--publish", definition="wary")
            assert wait_for_end(lab, "wary", 2)["runningStatus"]["code"] == "Completed"
            assert lab.versions("wary") == ["2.0.1"] * 3
    finally:
        lab.remove("wary")


def test_a_daemon_killed_in_the_middle_goes_on_when_it_is_started_again(lab):
    make(lab, "tough", 2)
    try:
        payload = write_payload(lab, "tough_0")
        with serving(lab) as daemon:
            lab.build("1.1.0", "--publish", definition="tough")
            wait_for(lambda: "batch 1 of 2" in events(lab, "tough"), seconds=LONG, what="a batch")
            daemon.kill()
            daemon.wait()
            (begun,) = history(lab, "tough")
            assert begun["runningStatus"]["code"] == "RollingForward"
        with serving(lab):
            ended = wait_for_end(lab, "tough")
        # The same upgrade, and not a second one.
        assert ended["runningStatus"]["startTime"] == begun["runningStatus"]["startTime"]
        assert ended["runningStatus"]["code"] == "Completed"
        assert ended["startedBy"] == "Platform"
        assert ended["progress"]["successfulInstanceCount"] == 2
        assert lab.versions("tough") == ["1.1.0", "1.1.0"]
        assert checksum(lab, "tough_0") == payload
        assert lab.domains("tough") == ["tough_0", "tough_1"]
    finally:
        lab.remove("tough")


def test_the_time_of_a_rollout_is_told_and_waited_for(lab):
    make(lab, "patient", 1)
    try:
        lab.build("1.1.0", "--publish", definition="patient")
        with serving(lab, "--first-within", "3h", "--rollout-after", "30m-60m"):
            lab.run("instance", "restart", "patient_0")
            watched = lab.json("image", "watch", "patient")[0]
            assert watched["takes"] == "patient/1.1.0"
            assert watched["when"] is not None
            assert history(lab, "patient") == []
    finally:
        lab.remove("patient")
