"""Commands that hold an upgrade back."""

import json
from datetime import timedelta

import pytest

from labctl.cli.app import main
from labctl.cli.output import to_plain
from labctl.cli.upgrade_document import as_document
from labctl.controller.clock import now
from labctl.controller.lock import try_lock
from labctl.errors import ExitCode
from labctl.model.control import ApprovalPolicy, CanaryPolicy, UpgradeControl
from labctl.model.plan import BeginBatch, EndUpgrade
from labctl.model.upgrade import MemberState, UpgradeCode
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.model.webhook import Webhook
from labctl.settings import load_settings
from labctl.store.instances import change_generation
from labctl.store.upgrades import change_member, change_upgrade, load_upgrade
from tests.controller.test_record import NOW, decide, start_upgrade
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture

LONG = timedelta(minutes=30)


@pytest.fixture
def run(web, tmp_path, capsys):
    def run_words(*words):
        code = main(["--state-dir", str(tmp_path), "upgrade", *words])
        return code, capsys.readouterr()

    return run_words


def test_a_pause_shows_in_the_status_until_it_is_over(web, run):
    upgrade = start_upgrade(web)
    code, told = run("pause", "web")
    assert (code, told.out) == (0, f"upgrade {upgrade}: pauses at the end of its batch\n")
    assert json.loads(run("status", "web", "-o", "json")[1].out)["pausedAt"] is not None
    code, told = run("pause", "web", "-o", "json")
    assert json.loads(told.out) == {
        "upgrade": upgrade,
        "changed": False,
        "message": "is paused already",
    }
    assert run("resume", "web")[0] == 0
    assert json.loads(run("status", "web", "-o", "json")[1].out)["pausedAt"] is None


def test_nothing_to_pause_is_refused_with_the_next_step(run):
    code, told = run("pause", "web")
    assert code == ExitCode.REFUSED
    assert "no upgrade of 'web' is running" in told.err
    assert "labctl upgrade history web" in told.err
    assert run("resume", "nothing")[0] == ExitCode.NOT_FOUND


@pytest.fixture
def asking(web):
    """An upgrade whose first batch waits for approval."""
    upgrade = start_upgrade(web)
    control = UpgradeControl(approval=ApprovalPolicy())
    with web.write() as connection:
        change_upgrade(
            connection, upgrade, control=control.model_dump_json(), approval_asked_at=NOW
        )
    return upgrade


def test_the_status_tells_what_waits_for_approval_until_it_is_given(asking, run):
    assert json.loads(run("status", "web", "-o", "json")[1].out)["waitsForApproval"] == {
        "batch": 1,
        "askedAt": "2026-11-23T00:00:00Z",
        "until": "2026-11-23T01:00:00Z",
        "onTimeout": "Reject",
    }
    code, told = run("approve", "web")
    assert (code, told.out) == (0, f"upgrade {asking}: batch 1 is approved\n")
    assert json.loads(run("status", "web", "-o", "json")[1].out)["waitsForApproval"] is None
    assert run("approve", "web")[0] == ExitCode.REFUSED


def test_the_policy_of_an_upgrade_is_shown_without_what_is_secret_in_a_url(web):
    upgrade = start_upgrade(web)
    webhook = Webhook(url="https://change.example/hush?token=hush")
    control = UpgradeControl(approval=ApprovalPolicy(webhook=webhook))
    with web.write() as connection:
        change_upgrade(connection, upgrade, control=control.model_dump_json())
    with web.read() as connection:
        shown = to_plain(as_document(load_upgrade(connection, upgrade)))
    assert shown["control"]["approval"]["webhook"]["url"] == "https://change.example/********"
    assert "hush" not in json.dumps(shown)


def test_a_rejection_is_told(asking, run):
    code, told = run("reject", "web", "--reason", "change freeze", "-o", "json")
    assert code == 0
    assert json.loads(told.out)["message"] == "is rejected and ends as Cancelled"
    assert run("reject", "web")[0] == ExitCode.REFUSED


# --- what an upgrade waits for, told without a hypervisor -----------------------------------------


@pytest.fixture
def serving(web):
    """Both instances are up, as the process that works on them has recorded."""
    with web.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, prepared=True, started_at=NOW, ready_at=NOW)
    return web


def find_waits(run):
    return json.loads(run("status", "web", "-o", "json")[1].out)["waitsFor"]


ORPHANED = "no process works on it; to go on: labctl upgrade watch web, or labctl serve"


def test_the_status_tells_that_nobody_works_on_it_and_what_its_user_has_to_do(serving, run):
    start_upgrade(serving)
    run("pause", "web")
    orphaned, paused = find_waits(run)
    assert orphaned == {"subject": "web", "reason": ORPHANED, "until": None}
    assert paused["subject"] == "web"
    assert "is paused by its user" in paused["reason"]
    assert "labctl upgrade resume web" in paused["reason"]
    told = run("status", "web")[1].out
    assert f"waits for web: {ORPHANED}\n" in told
    assert f"waits for web: {paused['reason']}\n" in told


def test_whoever_works_on_it_is_noticed_and_not_disturbed(serving, run, tmp_path):
    start_upgrade(serving)
    run("pause", "web")
    settings = load_settings(state_dir=tmp_path)
    with try_lock(settings, "web") as is_ours:
        assert is_ours
        assert [row["reason"] for row in find_waits(run) if row["reason"] == ORPHANED] == []
    with try_lock(settings, "web") as is_ours:
        assert is_ours


def test_the_status_tells_the_pause_between_batches_the_bake_time_and_the_window(serving, run):
    upgrade = start_upgrade(serving)
    policy = RollingUpgradePolicy(pause_time_between_batches=LONG)
    control = UpgradeControl(canary=CanaryPolicy(bake_time=LONG))
    with serving.write() as connection:
        values = {"batches": 1, "batch_ended_at": now()}
        change_upgrade(connection, upgrade, policy=policy.model_dump_json(), **values)
    pause = find_waits(run)[1]
    assert pause["reason"].startswith("pause before batch 2, ")
    assert pause["until"] is not None
    with serving.write() as connection:
        change_upgrade(connection, upgrade, control=control.model_dump_json())
        state = MemberState.SUCCEEDED.value
        change_member(connection, upgrade, "web_0", state=state, healthy_at=now(), batch=1)
    assert find_waits(run)[1]["reason"].startswith("bake time of the canary (web_0), ")
    assert " (until 20" in run("status", "web")[1].out


def test_the_status_tells_who_has_to_approve(serving, run):
    upgrade = start_upgrade(serving)
    control = UpgradeControl(approval=ApprovalPolicy())
    with serving.write() as connection:
        values = {"control": control.model_dump_json(), "approval_asked_at": now()}
        change_upgrade(connection, upgrade, **values)
    assert "labctl upgrade approve web" in find_waits(run)[1]["reason"]


def test_the_status_tells_the_step_of_each_instance_that_is_being_upgraded(serving, run):
    upgrade = start_upgrade(serving)
    batch = BeginBatch(upgrade=upgrade, batch=1, instances=("web_0",), reason="batch 1 of 2")
    decide(serving, batch)
    assert find_waits(run)[1:] == [
        {"subject": "web_0", "reason": "preparing OS disk 2", "until": None}
    ]


def test_an_ended_upgrade_waits_for_nothing(serving, run):
    upgrade = start_upgrade(serving)
    decide(serving, EndUpgrade(upgrade=upgrade, code=UpgradeCode.CANCELLED, reason="enough"))
    assert find_waits(run) == []
    assert "waits for" not in run("status", "web")[1].out


def test_an_unknown_time_zone_is_told_with_its_place(tmp_path, capsys):
    file = tmp_path / "web.yaml"
    file.write_text(
        "name: web\ncapacity: 1\nimage:\n  definition: tiny\nupgradePolicy:\n"
        "  maintenanceWindows:\n"
        "    - {days: [Sat, Sun], start: 22:00, duration: 2h, timeZone: Mars/Olympus}\n"
    )
    words = ["--state-dir", str(tmp_path), "apply", str(file), "--dry-run"]
    assert main(words) == ExitCode.INVALID
    told = capsys.readouterr().err
    assert f"{file}:7:64: upgradePolicy.maintenanceWindows[0].timeZone: 'Mars/Olympus'" in told


def test_a_start_that_is_no_time_is_told_with_the_rule(tmp_path, capsys):
    file = tmp_path / "web.yaml"
    file.write_text(
        "name: web\ncapacity: 1\nimage:\n  definition: tiny\nupgradePolicy:\n"
        "  maintenanceWindows:\n    - {start: 25:00, duration: 2h}\n"
    )
    words = ["--state-dir", str(tmp_path), "apply", str(file), "--dry-run"]
    assert main(words) == ExitCode.INVALID
    assert "must be a time of the day" in capsys.readouterr().err
