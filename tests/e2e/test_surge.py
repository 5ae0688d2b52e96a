"""New instances that come for old ones, on real VMs; and failed ones that go back at a limit."""

import re
import sqlite3
import threading
import urllib.request

from tests.e2e.harness import Lab

PROBE = {"probe": {"protocol": "http", "port": 8080, "requestPath": "/health"}}
PATIENT = {"boot": "240s", "customData": "90s", "shutdown": "20s"}


POLICY = {
    "healthTimeout": "8s",
    "rollingUpgradePolicy": {"maxSurge": True, "rollbackFailedInstancesOnPolicyBreach": True},
}


class Reader(threading.Thread):
    """Asks the application of every instance, over and over, and keeps the fewest that answered.

    By ordinal: when an old one has gone off, its successor is asked afterwards.
    """

    def __init__(self, lab: Lab, scale_set: str) -> None:
        super().__init__(daemon=True)
        self._store = f"file:{lab.state_dir / 'labctl.db'}?mode=ro"
        self._scale_set = scale_set
        self._stop_asked = threading.Event()
        self.seen: list[int] = []

    def run(self) -> None:
        while not self._stop_asked.wait(0.2):
            store = sqlite3.connect(self._store, uri=True)
            try:
                query = "SELECT probe_port FROM instance WHERE scale_set = ? ORDER BY ordinal"
                ports = [row[0] for row in store.execute(query, (self._scale_set,))]
            finally:
                store.close()
            self.seen.append(sum(map(self._answers, ports)))

    def stop(self) -> list[int]:
        self._stop_asked.set()
        self.join(timeout=60)
        return self.seen

    def _answers(self, port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


def boot_ids(lab, names):
    return [lab.ask(name, "cat /proc/sys/kernel/random/boot_id") for name in names]


def check_nothing_is_left_over(lab, *names):
    assert lab.domains("swarm") == sorted(names)
    assert lab.files("swarm") == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("console.log", "g1.iso", "g1.qcow2")
    )


def test_new_instances_come_for_old_ones_and_never_fewer_serve(lab, broken):
    bad = broken("unhealthy")
    lab.apply("swarm", capacity=2, health=PROBE, timeouts=PATIENT, upgradePolicy=POLICY)
    try:
        plan = lab.json("upgrade", "plan", "swarm", "--version", "1.1.0")
        assert [batch["replacements"] for batch in plan["batches"]] == [
            [{"instance": "swarm_0", "replacedBy": "swarm_2"}],
            [{"instance": "swarm_1", "replacedBy": "swarm_3"}],
        ]
        old = {row["uuid"] for row in lab.instances("swarm").values()}
        reader = Reader(lab, "swarm")
        reader.start()
        # Killed when the first successor is up; its forerunner serves on.
        words = ("upgrade", "start", "swarm", "--version", "1.1.0")
        env = {"LABCTL_FAILPOINT": "ready:climbed"}
        assert lab.run(*words, expect=None, env=env).returncode == -9
        shown = lab.run("show", "swarm").stdout
        assert re.search(r"^NAME +.*REPLACES +REPLACED BY", shown, re.M), shown
        assert re.search(r"^swarm_0 .* swarm_2 ", shown, re.M), shown
        assert re.search(r"^swarm_2 .* swarm_0 ", shown, re.M), shown
        lab.run("upgrade", "watch", "swarm")
        seen = reader.stop()
        assert len(seen) > 10
        assert min(seen) >= 2, seen
        status = lab.json("upgrade", "status", "swarm")
        assert status["runningStatus"]["code"] == "Completed"
        assert status["progress"]["successfulInstanceCount"] == 2
        assert [m["replacedBy"] for m in status["members"]] == ["swarm_2", "swarm_3"]
        rows = lab.instances("swarm").values()
        assert [row["imageVersion"] for row in rows] == ["1.1.0", "1.1.0"]
        assert not old & {row["uuid"] for row in rows}
        check_nothing_is_left_over(lab, "swarm_2", "swarm_3")

        # A bad version: the new one fails and goes, nothing else happens to anybody.
        present = ("swarm_2", "swarm_3")
        before = boot_ids(lab, present)
        lab.run("upgrade", "start", "swarm", "--version", bad, "--rollback", expect=1)
        assert boot_ids(lab, present) == before
        check_nothing_is_left_over(lab, *present)
        shown = lab.json("upgrade", "show", lab.json("upgrade", "status", "swarm")["id"])
        assert shown["runningStatus"]["code"] == "Faulted"
        assert shown["rollbackInfo"]["successfullyRolledbackInstanceCount"] == 1
        assert shown["members"][0]["state"] == "RolledBack"
        assert "swarm_2 was not touched" in shown["members"][0]["message"]
        assert shown["evidence"]["swarm_0"]["rung"] == "health"

        # A protected one gets the bad disk in place; the limit puts back what failed.
        lab.run("instance", "protect", "swarm_2", "--from-scale-in")
        lab.run("upgrade", "start", "swarm", "--version", bad, expect=1)
        status = lab.json("upgrade", "status", "swarm")
        assert status["runningStatus"]["code"] == "Faulted"
        assert [m["state"] for m in status["members"]] == ["RolledBack", "Pending"]
        rows = lab.instances("swarm").values()
        assert [(row["imageVersion"], row["health"]) for row in rows] == [("1.1.0", "Healthy")] * 2
        assert boot_ids(lab, ("swarm_3",)) == before[1:]
        check_nothing_is_left_over(lab, *present)
    finally:
        lab.remove("swarm")
