"""An upgrade of the daemon waits for a window, for a person, for its canary and for its user."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.harness import HEALTH, Lab, share_build_cache, state_directory, wait_for
from tests.e2e.serving import AUTOMATIC, LONG, events, history, read_log, serving, wait_for_end

BAKE = timedelta(seconds=10)
OPEN = {"start": "00:00", "duration": "24h"}


def make_closed_window() -> dict[str, str]:
    """Half an hour, half a day away."""
    return {"start": f"{datetime.now(UTC) + timedelta(hours=12):%H:%M}", "duration": "30m"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own: the daemon works on every scale set that it finds."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        yield made
        made.remove("held")


def apply(lab: Lab, window: dict[str, str]) -> None:
    policy = {
        "healthTimeout": "15s",
        "maintenanceWindows": [window],
        "approval": {"before": "FirstBatch", "onTimeout": "Reject"},
        "canary": {"instances": 1, "bakeTime": f"{BAKE.seconds}s"},
        **AUTOMATIC,
    }
    image = {"definition": "held", "version": "latest"}
    lab.apply("held", capacity=2, image=image, health=HEALTH, upgradePolicy=policy)


def wait_to_hear(lab: Lab, text: str) -> None:
    wait_for(lambda: text in read_log(lab), seconds=LONG, what=f"{text!r} from the daemon")


def find_status(lab: Lab):
    return lab.json("upgrade", "status", "held")


def test_an_upgrade_waits_for_its_window_its_approval_its_canary_and_its_user(lab):
    lab.build("1.0.0", "--publish", definition="held")
    apply(lab, make_closed_window())
    with serving(lab):
        # The window is closed: nothing begins, and `image watch` says why.
        lab.build("1.1.0", "--publish", definition="held")
        wait_to_hear(lab, "waits: 1.1.0 waits for the maintenance window of")
        watched = lab.json("image", "watch", "held")[0]
        assert watched["takes"] == "held/1.1.0"
        assert watched["why"].startswith("1.1.0 waits for the maintenance window of ")
        opens_at = datetime.fromisoformat(watched["when"])
        assert timedelta(hours=11) < opens_at - datetime.now(UTC) < timedelta(hours=12)
        assert history(lab, "held") == []

        # It opens: the upgrade begins, and asks before its first batch.
        apply(lab, OPEN)
        wait_to_hear(lab, "batch 1 (held_0) waits for the approval of a person")
        status = find_status(lab)
        assert status["waitsForApproval"]["batch"] == 1
        assert [m["state"] for m in status["members"]] == ["Pending", "Pending"]

        # Approved, the canary goes; paused and outside of its window, nothing else does.
        lab.run("upgrade", "approve", "held")
        wait_to_hear(lab, "batch 1 of 2 to 1.1.0: canary, at most 1 of 2 at once")
        lab.run("upgrade", "pause", "held")
        apply(lab, make_closed_window())
        wait_to_hear(lab, "is paused by its user")
        assert "to go on: labctl upgrade resume held" in lab.run("why", "held_1").stdout
        status = find_status(lab)
        assert status["pausedAt"] is not None
        assert [m["state"] for m in status["members"]] == ["Succeeded", "Pending"]

        # Resumed, it waits for the end of the bake time and for the window.
        lab.run("upgrade", "resume", "held")
        wait_to_hear(lab, "waits: waits for the maintenance window of")
        assert lab.versions("held") == ["1.1.0", "1.0.0"]
        apply(lab, OPEN)
        ended = wait_for_end(lab, "held")
        assert ended["runningStatus"]["code"] == "Completed"
        assert ended["startedBy"] == "Platform"
        assert lab.versions("held") == ["1.1.0", "1.1.0"]
        canary, other = find_status(lab)["members"]
        baked = datetime.fromisoformat(other["admittedAt"]) - datetime.fromisoformat(
            canary["healthyAt"]
        )
        assert baked >= BAKE
        # The approval was for the whole upgrade: nobody was asked a second time.
        assert events(lab, "held").count("needs the approval of a person") == 1
