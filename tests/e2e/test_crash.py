"""The controller killed with SIGKILL at every named point of a swap, then started again."""

import itertools
import re

import pytest

from tests.e2e.harness import HEALTH, ROOT, checksum, write_payload

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
EXTENSION = {"name": "mark", "script": "#!/bin/sh\necho ext >>/var/lib/ran\n"}
POINTS = [
    "prepare:begin",
    "prepare:overlay",
    "prepare:seed",
    "prepare:recorded",
    "stop:begin",
    "stop:done",
    "define:begin",
    "define:done",
    "start:begin",
    "start:done",
    "start:recorded",
    "ready:climbed",
    "extension:recorded",
    "extension:ran",
    "discard:begin",
    "discard:files",
]
ELSEWHERE = {"delete:undefined", "delete:files"}
HOOKS = {"hook:recorded", "hook:ran"}  # tried in test_hooks.py
# Tried in tests/api/handlers/test_gallery_versions.py.
IMPORTS = {"import:fetched", "import:stored"}
TARGETS = itertools.cycle(["1.1.0", "1.0.0"])


@pytest.fixture(scope="module")
def crash(lab):
    lab.apply("crash", dataDisks=DATA, extensions=[EXTENSION], health=HEALTH)
    yield write_payload(lab, "crash_0")
    lab.remove("crash")


def test_every_named_point_is_tried():
    source = "".join(path.read_text() for path in (ROOT / "labctl" / "controller").glob("*.py"))
    assert set(re.findall(r'reach\("([^"]+)"\)', source)) == {*POINTS, *ELSEWHERE, *HOOKS, *IMPORTS}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_a_swap_the_next_run_converges(lab, crash, point):
    target = next(TARGETS)
    words = ("upgrade", "start", "crash", "--version", target)
    killed = lab.run(*words, expect=None, env={"LABCTL_FAILPOINT": point})
    assert killed.returncode == -9, killed.stderr
    # What a person does then: look, and run on.
    lab.run("show", "crash")
    running = lab.json("upgrade", "status", "crash")["runningStatus"]["endTime"] is None
    if running:
        lab.run("upgrade", "watch", "crash")
    else:
        lab.run("apply", lab.specs / "crash.yaml")
    assert lab.json("upgrade", "status", "crash")["runningStatus"]["code"] == "Completed"
    row = lab.instances("crash")["crash_0"]
    assert (row["imageVersion"], row["health"]) == (target, "Healthy")
    assert checksum(lab, "crash_0") == crash
    assert lab.ask("crash_0", "cat /var/lib/ran") == "ext"  # once on this disk, not twice
    assert lab.domains("crash") == ["crash_0"]
    number = row["osDisk"]
    assert lab.files("crash") == sorted(
        f"crash_0.{suffix}"
        for suffix in ("console.log", "data-data.qcow2", f"g{number}.iso", f"g{number}.qcow2")
    )


@pytest.mark.parametrize("point", sorted(ELSEWHERE))
def test_killed_while_deleting_the_next_delete_finishes(lab, point):
    lab.apply("doomed", dataDisks=DATA)
    try:
        env = {"LABCTL_FAILPOINT": point}
        assert lab.run("delete", "doomed", "--yes", expect=None, env=env).returncode == -9
        lab.run("delete", "doomed", "--yes")
        assert lab.domains("doomed") == []
        assert lab.files("doomed") == ["doomed_0.data-data.qcow2"]
    finally:
        lab.remove("doomed")
