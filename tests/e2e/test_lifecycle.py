"""Provisioning, scaling, operating and deleting instances, on real VMs."""

import signal

import pytest

from tests.e2e.harness import HEALTH, checksum, wait_for, write_payload

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
COUNTING = {"inline": "#!/bin/sh\necho ran >>/data/custom-data.log\n"}
EXTENSIONS = [
    {
        "name": "second",
        "script": "#!/bin/sh\necho second >>/data/extensions.log\n",
        "provisionAfterExtensions": ['the "first" one\'s'],
    },
    {"name": 'the "first" one\'s', "script": "#!/bin/sh\necho first >>/data/extensions.log\n"},
]


@pytest.fixture(scope="module")
def web(lab):
    """Three instances with everything on them."""
    spec = {
        "capacity": 3,
        "dataDisks": DATA,
        "customData": COUNTING,
        "extensions": EXTENSIONS,
        "health": HEALTH,
    }
    lab.apply("web", **spec)
    yield spec
    lab.remove("web")


def test_instances_come_up_healthy_with_custom_data_extensions_and_data_disk(lab, web):
    rows = lab.instances("web")
    assert list(rows) == ["web_0", "web_1", "web_2"]
    assert {row["health"] for row in rows.values()} == {"Healthy"}
    assert lab.ask("web_1", "hostname") == "web-1"
    assert lab.ask("web_1", "cat /data/custom-data.log") == "ran"
    assert lab.ask("web_1", "cat /data/extensions.log").split() == ["first", "second"]
    assert lab.ask("web_1", "stat -f -c %T /data; cat /sys/block/vd*/serial").count("data-data")


def test_a_second_apply_changes_nothing_and_says_so(lab, web):
    boots = {name: lab.ask(name, "cat /proc/sys/kernel/random/boot_id") for name in ("web_0",)}
    again = lab.apply("web", **web)
    assert "nothing to change" in again.stdout
    assert boots["web_0"] == lab.ask("web_0", "cat /proc/sys/kernel/random/boot_id")
    assert lab.ask("web_0", "cat /data/extensions.log").split() == ["first", "second"]


def test_data_disks_survive_scaling_in_and_out(lab, web):
    before = write_payload(lab, "web_2")
    lab.run("scale", "web", 2)
    assert lab.domains("web") == ["web_0", "web_1"]
    assert [n for n in lab.files("web") if n.startswith("web_2")] == ["web_2.data-data.qcow2"]
    lab.run("scale", "web", 3)
    assert checksum(lab, "web_2") == before
    # A new OS disk: custom data ran again, on a disk that was not formatted again.
    assert lab.ask("web_2", "cat /data/custom-data.log").split() == ["ran", "ran"]


def test_a_stopped_instance_stays_stopped_until_it_is_started(lab, web):
    lab.run("instance", "stop", "web_0")
    assert lab.instances("web")["web_0"]["power"] == "Stopped"
    assert "nothing to change" in lab.apply("web", **web).stdout
    assert lab.instances("web")["web_0"]["power"] == "Stopped"
    lab.run("instance", "start", "web_0")
    assert lab.instances("web")["web_0"]["health"] == "Healthy"
    assert lab.ask("web_0", "cat /data/custom-data.log") == "ran"


def test_restart_boots_the_same_disk_without_running_custom_data_again(lab, web):
    before = lab.ask("web_0", "cat /proc/sys/kernel/random/boot_id; echo kept >/root/mark; sync")
    lab.run("instance", "restart", "web_0")
    assert lab.ask("web_0", "cat /proc/sys/kernel/random/boot_id") != before
    assert lab.ask("web_0", "cat /root/mark /data/custom-data.log").split() == ["kept", "ran"]


def test_rerun_runs_custom_data_and_extensions_again_on_purpose(lab, web):
    lab.run("rerun", "web", "--custom-data", "--extensions", "--instance", "web_0")
    assert lab.ask("web_0", "cat /data/custom-data.log").split() == ["ran", "ran"]
    assert lab.ask("web_0", "cat /data/extensions.log").split() == ["first", "second"] * 2
    assert lab.ask("web_1", "cat /data/extensions.log").split() == ["first", "second"]


def test_the_serial_console_is_kept_from_the_first_byte(lab, web):
    log = lab.run("instance", "logs", "web_1").stdout
    assert log.startswith("tiny: starting")  # long before anybody could log in
    assert lab.json("instance", "logs", "web_1", "-n", "3")["lines"]


def test_an_instance_that_dies_is_found_and_started_again_by_apply(lab, web):
    lab.ask("web_1", "poweroff -f >/dev/null 2>&1 &")
    wait_for(
        lambda: lab.instances("web")["web_1"]["power"] == "Stopped", seconds=30, what="power off"
    )
    why = lab.run("why", "web_1").stdout
    assert "found off" in why
    lab.apply("web", **web)
    assert lab.instances("web")["web_1"]["health"] == "Healthy"


def test_what_failed_is_told_and_can_be_tried_again(lab):
    def fails_once(name):
        return (
            f"#!/bin/sh\necho {name} >>/data/{name}\n[ $(wc -l </data/{name}) -gt 1 ] || exit 3\n"
        )

    spec = {
        "dataDisks": DATA,
        "customData": {"inline": fails_once("custom")},
        "extensions": [
            {"name": "good", "script": "#!/bin/sh\necho good >>/data/good\n"},
            {
                "name": "bad",
                "script": fails_once("bad"),
                "provisionAfterExtensions": ["good"],
            },
        ],
        "health": HEALTH,
    }
    path = lab.spec("stumble", **spec)
    try:
        failed = lab.run("apply", path, expect=1)
        assert "custom data ended with exit code 3" in failed.stderr
        assert "next: run: labctl why stumble_0" in failed.stderr
        assert "failed at custom-data" in lab.run("why", "stumble_0").stdout
        failed = lab.run("rerun", "stumble", "--custom-data", expect=1)
        assert "extension 'bad' ended with exit code 3" in failed.stderr
        again = lab.run("apply", path)
        assert "trying again" in again.stdout
        assert lab.instances("stumble")["stumble_0"]["health"] == "Healthy"
        # Only what had failed ran again.
        lines = {name: lab.ask("stumble_0", f"wc -l </data/{name}") for name in ("good", "bad")}
        assert lines == {"good": "1", "bad": "2"}
    finally:
        lab.remove("stumble")


def test_ctrl_c_leaves_a_state_from_which_the_next_command_continues(lab):
    spec = lab.spec("stopped", capacity=2, health=HEALTH, dataDisks=DATA)
    running = lab.spawn("apply", spec)
    try:
        wait_for(lambda: lab.domains("stopped"), seconds=60, what="first domain")
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
        assert running.returncode == 130, output
        assert "run the same command again" in output
        assert "Traceback" not in output
        lab.run("apply", spec)
        assert {row["health"] for row in lab.instances("stopped").values()} == {"Healthy"}
    finally:
        lab.remove("stopped")


def test_delete_leaves_nothing_but_data_disks_which_need_a_word_of_their_own(lab):
    lab.apply("gone", dataDisks=DATA)
    payload = write_payload(lab, "gone_0")
    lab.run("delete", "gone", expect=2)  # nobody can answer the question here
    deleted = lab.run("delete", "gone", "--yes")
    assert "1 data disks are kept" in deleted.stdout
    assert lab.domains("gone") == []
    assert lab.files("gone") == ["gone_0.data-data.qcow2"]
    lab.apply("gone", dataDisks=DATA)
    assert checksum(lab, "gone_0") == payload
    lab.run("disk", "delete", "gone_0/data", "--yes", expect=4)
    lab.run("delete", "gone", "--yes")
    lab.run("disk", "delete", "gone_0/data", "--yes")
    assert lab.files("gone") == []
    assert lab.json("disk", "list", "gone") == []
