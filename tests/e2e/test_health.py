"""Rich health (2.0) and upgrades in phases, on real VMs."""

import json

import pytest

from tests.e2e.harness import wait_for

# The application of tiny serves what lies in /www. rich_1 goes first, rich_0 second.
TELLING = r"""#!/bin/sh
phase=0
[ "$(hostname)" != rich-0 ] || phase=1
printf '{"ApplicationHealthState": "Healthy", "customMetrics": "%s"}' \
    "{\\\"rollingUpgrade\\\": {\\\"PhaseOrderingNumber\\\": $phase}}" >/www/rich
"""
RICH = {
    "applicationHealth": {
        "port": 8080,
        "requestPath": "/rich",
        "typeHandlerVersion": "2.0",
        "gracePeriod": "2m",
    }
}
# Of the agent's session: seconds of processor time, and of uptime; then, in kB, its memory.
COST = r"""
pid=$(cat /run/labctl/health/pid)
spent() {
    cat /proc/[0-9]*/stat 2>/dev/null |
        awk -v pid="$pid" '$6 == pid { t += $14 + $15 + $16 + $17 } END { print t / 100 }'
    cut -d' ' -f1 /proc/uptime
}
spent; sleep 40; spent
for stat in /proc/[0-9]*/stat; do
    read -r process _ _ _ _ session _ <"$stat" || continue
    [ "$session" != "$pid" ] || grep VmRSS "/proc/$process/status"
done 2>/dev/null | awk '{ kb += $2 } END { print kb }'
"""


@pytest.fixture
def rich(lab):
    """Two instances whose application tells phases."""
    lab.apply("rich", capacity=2, health=RICH, customData={"inline": TELLING})
    yield "rich"
    lab.remove("rich")


def health_of(lab, instance):
    return lab.instances("rich")[instance]["health"]


def test_rich_states_and_phases_of_an_upgrade(lab, rich, capsys):
    rows = lab.instances("rich")
    assert {row["health"] for row in rows.values()} == {"Healthy"}
    told = lab.json("instance", "show", "rich_0")["customMetrics"]
    assert json.loads(told) == {"rollingUpgrade": {"PhaseOrderingNumber": 1}}

    before, start, after, end, memory = lab.ask("rich_0", COST).splitlines()
    share = (float(after) - float(before)) / (float(end) - float(start))
    with capsys.disabled():
        print(f"\n  agent.sh in tiny: {100 * share:.2f} % of the guest's core, {memory} kB")

    lab.ask("rich_1", "sed -i s/Healthy/Unhealthy/ /www/rich")
    wait_for(lambda: health_of(lab, "rich_1") == "Unhealthy", seconds=60, what="Unhealthy")
    lab.ask("rich_1", "mv /www/rich /www/kept")
    wait_for(lambda: health_of(lab, "rich_1") == "Unknown", seconds=60, what="Unknown")
    lab.ask("rich_1", "sed s/Unhealthy/Healthy/ /www/kept >/www/rich")
    wait_for(lambda: health_of(lab, "rich_1") == "Healthy", seconds=60, what="Healthy")
    # The seed brings the agent back at each boot.
    lab.run("instance", "restart", "rich_1")
    assert health_of(lab, "rich_1") == "Healthy"

    plan = lab.json("upgrade", "plan", "rich", "--version", "1.1.0")
    assert [(b["phase"], b["instances"]) for b in plan["batches"]] == [
        (0, ["rich_1"]),
        (1, ["rich_0"]),
    ]
    assert "phase 0" in lab.run("upgrade", "plan", "rich", "--version", "1.1.0").stdout
    lab.run("upgrade", "start", "rich", "--version", "1.1.0")
    assert lab.versions("rich") == ["1.1.0", "1.1.0"]
    members = {m["instance"]: m for m in lab.json("upgrade", "status", "rich")["members"]}
    assert [(members[n]["phase"], members[n]["batch"]) for n in ("rich_0", "rich_1")] == [
        (1, 2),
        (0, 1),
    ]

    skip = r's/PhaseOrderingNumber[^}]*/SkipUpgrade\\": \\"true\\"/'
    lab.ask("rich_0", f"sed -i '{skip}' /www/rich")
    wait_for(
        lambda: "SkipUpgrade" in lab.json("instance", "show", "rich_0")["customMetrics"],
        seconds=60,
        what="the wish to be skipped",
    )
    lab.run("upgrade", "start", "rich", "--version", "1.0.0")
    assert lab.versions("rich") == ["1.1.0", "1.0.0"]
    members = {m["instance"]: m for m in lab.json("upgrade", "status", "rich")["members"]}
    assert members["rich_0"]["state"] == "Skipped"
    assert "SkipUpgrade" in members["rich_0"]["message"]
