"""A changed model on its way to real instances: foretold, Rolling, Manual, Automatic."""

from tests.e2e.harness import HEALTH, checksum, wait_for, write_payload

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
MORE = [*DATA, {"name": "more", "size": "16MiB", "fileSystem": "ext4", "mountPoint": "/more"}]
ROLLING = {"mode": "Rolling", "healthTimeout": "15s"}
AUTOMATIC = {"mode": "Automatic", "healthTimeout": "15s"}
# Two guests boot at once here, on hosts that may be busy.
PATIENT = {"boot": "240s", "customData": "90s", "shutdown": "20s"}
BROKEN = {"inline": "#!/bin/sh\necho broken >>/data/runs\nexit 7\n"}


def custom_data(word):
    return {"inline": f"#!/bin/sh\necho {word} >>/data/runs\n"}


def boot_id(lab, instance):
    return lab.ask(instance, "cat /proc/sys/kernel/random/boot_id")


def memory(lab, instance):
    """What the guest's kernel has, in KiB."""
    return int(lab.ask(instance, "awk '/MemTotal/{print $2}' /proc/meminfo"))


def disks(lab, scale_set):
    return [row["osDisk"] for row in lab.instances(scale_set).values()]


def latest(lab, scale_set):
    return [row["latestModelApplied"] for row in lab.instances(scale_set).values()]


def test_a_changed_model_rolls_by_apply_alone_and_goes_on_after_a_fault(lab):
    fixed = {"capacity": 2, "dataDisks": DATA, "health": HEALTH, "timeouts": PATIENT}
    fixed["upgradePolicy"] = ROLLING
    lab.apply("swell", customData=custom_data("one"), **fixed)
    try:
        payload = write_payload(lab, "swell_0")
        spec = lab.spec("swell", customData=custom_data("two"), **fixed)
        foreseen = lab.json("apply", spec, "--dry-run")
        assert foreseen["need"] == "OsSwap"
        assert [(i["field"], i["need"]) for i in foreseen["impacts"]] == [("customData", "OsSwap")]
        assert latest(lab, "swell") == [True, True]  # nothing was changed by looking
        lab.run("apply", spec)
        assert disks(lab, "swell") == [2, 2]
        assert latest(lab, "swell") == [True, True]
        assert lab.versions("swell") == ["1.0.0", "1.0.0"]
        assert checksum(lab, "swell_0") == payload
        assert lab.ask("swell_0", "cat /data/runs").split() == ["one", "two"]
        upgrade = lab.json("upgrade", "status", "swell")
        assert (upgrade["purpose"], upgrade["runningStatus"]["code"]) == ("Model", "Completed")
        assert [member["batch"] for member in upgrade["members"]] == [1, 2]
        # A model that no instance gets through with stops after the first.
        failed = lab.run("apply", lab.spec("swell", customData=BROKEN, **fixed), expect=1)
        assert "Faulted" in failed.stderr
        assert latest(lab, "swell") == [False, False] or latest(lab, "swell") == [True, False]
        assert lab.instances("swell")["swell_1"]["health"] == "Healthy"
        # One unhealthy of two is too many for a rolling upgrade, also for one that would heal it.
        mended = lab.spec("swell", customData=custom_data("three"), **fixed)
        refused = lab.run("apply", mended, expect=1)
        assert "unhealthy in the scale set: 1 of 2" in refused.stderr
        assert disks(lab, "swell") == [3, 2]
        lab.run("update-instances", "swell", "swell_0")
        # The same spec again begins the rest.
        lab.run("apply", mended)
        assert latest(lab, "swell") == [True, True]
        assert lab.ask("swell_1", "cat /data/runs").split() == ["one", "two", "three"]
        assert checksum(lab, "swell_0") == payload
        assert "nothing to change" in lab.run("apply", mended).stdout
    finally:
        lab.remove("swell")


def test_manual_instances_get_the_model_when_they_are_named(lab):
    fixed = {"capacity": 2, "dataDisks": DATA, "health": HEALTH, "timeouts": PATIENT}
    before = {"name": "mark", "script": "#!/bin/sh\necho before >>/data/runs\n"}
    after = {"name": "mark", "script": "#!/bin/sh\necho after >>/data/runs\n"}
    lab.apply("hand", extensions=[before], **fixed)
    try:
        boots = [boot_id(lab, f"hand_{n}") for n in (0, 1)]
        memories = [memory(lab, f"hand_{n}") for n in (0, 1)]
        lab.apply("hand", extensions=[after], **fixed)
        assert latest(lab, "hand") == [False, False]
        plan = lab.json("upgrade", "plan", "hand")
        assert (plan["purpose"], plan["need"]) == ("Model", "RerunExtensions")
        assert [batch["instances"] for batch in plan["batches"]] == [["hand_0"], ["hand_1"]]
        assert "extensions: RerunExtensions" in lab.run("upgrade", "plan", "hand").stdout
        told = lab.run("update-instances", "hand", "hand_1", "--no-wait").stdout
        assert "recorded; run: labctl update-instances hand hand_1" in told
        # The same command goes on with what is recorded only, or was interrupted.
        done = lab.json("update-instances", "hand", "hand_1")
        assert done["updated"] == []
        assert "1 healthy" in done["message"]
        assert latest(lab, "hand") == [False, True]
        assert lab.ask("hand_1", "cat /data/runs").split() == ["before", "after"]
        # The extension ran again on the same boot of the same disk.
        assert [boot_id(lab, f"hand_{n}") for n in (0, 1)] == boots
        # A size and a data disk need a restart, not a disk; the rest of the model comes along.
        size = {"vcpus": 1, "memory": "160MiB"}
        lab.apply("hand", extensions=[after], **(fixed | {"dataDisks": MORE}), size=size)
        lab.run("upgrade", "start", "hand")
        assert latest(lab, "hand") == [True, True]
        assert disks(lab, "hand") == [1, 1]
        for n in (0, 1):
            assert boot_id(lab, f"hand_{n}") != boots[n]
            # 32 MiB more; a little of it goes to the kernel's tables.
            assert memory(lab, f"hand_{n}") - memories[n] > 28 * 1024
            assert "/more" in lab.ask(f"hand_{n}", "cat /proc/mounts")
        assert lab.ask("hand_0", "cat /data/runs").split() == ["before", "after"]
        again = lab.run("update-instances", "hand", "--all")
        assert "nothing to update" in again.stdout
        assert (
            "no instance 'hand_7'" in lab.run("update-instances", "hand", "hand_7", expect=3).stderr
        )
    finally:
        lab.remove("hand")


def test_automatic_brings_every_instance_to_the_model_at_once(lab):
    fixed = {"capacity": 2, "dataDisks": DATA, "health": HEALTH, "timeouts": PATIENT}
    fixed["upgradePolicy"] = AUTOMATIC
    lab.apply("auto", customData=custom_data("one"), **fixed)
    try:
        spec = lab.spec("auto", customData=custom_data("two"), **fixed)
        # Only recorded: another command that works on the set takes it up.
        lab.run("apply", spec, "--no-wait")
        assert latest(lab, "auto") == [False, False]
        lab.run("apply", spec)
        assert latest(lab, "auto") == [True, True]
        assert disks(lab, "auto") == [2, 2]
        assert lab.ask("auto_1", "cat /data/runs").split() == ["one", "two"]
        assert lab.json("upgrade", "history", "auto") == []
    finally:
        lab.remove("auto")


def test_a_newer_model_overtakes_the_one_that_is_rolling(lab):
    fixed = {"capacity": 2, "dataDisks": DATA, "health": HEALTH, "timeouts": PATIENT}
    fixed["upgradePolicy"] = ROLLING
    lab.apply("pass", customData=custom_data("one"), **fixed)
    try:
        spec = lab.spec("pass", customData=custom_data("two"), **fixed)
        rolling = lab.spawn("apply", spec)
        wait_for(lambda: "batch 1" in lab.run("events", "pass").stdout, seconds=60, what="batch 1")
        lab.run("apply", lab.spec("pass", customData=custom_data("three"), **fixed))
        rolling.communicate(timeout=300)
        assert latest(lab, "pass") == [True, True]
        assert lab.ask("pass_1", "cat /data/runs").split() == ["one", "three"]
        codes = [u["runningStatus"]["code"] for u in lab.json("upgrade", "history", "pass")]
        assert codes == ["Completed", "Cancelled"]
    finally:
        lab.remove("pass")
