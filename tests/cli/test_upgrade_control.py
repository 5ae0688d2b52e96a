"""Commands that hold an upgrade back."""

import json

import pytest

from labctl.cli.app import main
from labctl.errors import ExitCode
from labctl.model.control import ApprovalPolicy, UpgradeControl
from labctl.store.upgrades import change_upgrade
from tests.controller.test_record import NOW, start_upgrade
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture


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


def test_a_rejection_is_told(asking, run):
    code, told = run("reject", "web", "--reason", "change freeze", "-o", "json")
    assert code == 0
    assert json.loads(told.out)["message"] == "is rejected and ends as Cancelled"
    assert run("reject", "web")[0] == ExitCode.REFUSED


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
