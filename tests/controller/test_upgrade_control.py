"""Holding an upgrade back, in the store."""

from datetime import timedelta

import pytest

from labctl.controller.upgrade_control import (
    approve_batch,
    ignore_windows,
    pause_upgrade,
    reject_batch,
    resume_upgrade,
)
from labctl.controller.upgrades import cancel_upgrade
from labctl.errors import NotFoundError, RefusedError
from labctl.model.control import ApprovalPolicy, UpgradeControl
from labctl.model.plan import AskApproval, BeginBatch, EndUpgrade
from labctl.model.upgrade import UpgradeCode
from labctl.store.events import load_events
from labctl.store.upgrades import change_upgrade, load_upgrade
from tests.controller.test_record import NOW, decide, start_upgrade, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture

LATER = NOW + timedelta(minutes=1)


def ask(database, function, *arguments, **options):
    with database.write() as connection:
        return function(connection, *arguments, now=LATER, **options)


def load(database, upgrade_id):
    with database.read() as connection:
        return load_upgrade(connection, upgrade_id)


def last_event(database):
    with database.read() as connection:
        return load_events(connection)[-1]


def test_a_pause_is_recorded_once_and_taken_back(web):
    upgrade = start_upgrade(web)
    assert ask(web, pause_upgrade, "web") == (upgrade, True)
    assert load(web, upgrade).paused_at == LATER
    assert ask(web, pause_upgrade, "web") == (upgrade, False)
    assert "the current batch finishes" in last_event(web).message
    assert ask(web, resume_upgrade, "web") == (upgrade, True)
    assert load(web, upgrade).paused_at is None
    assert ask(web, resume_upgrade, "web") == (upgrade, False)
    assert last_event(web).message == f"upgrade {upgrade} resumed"


@pytest.mark.parametrize("function", [pause_upgrade, resume_upgrade])
def test_nothing_is_paused_or_resumed_where_nothing_runs(web, function):
    with pytest.raises(RefusedError, match="no upgrade of 'web' is running"):
        ask(web, function, "web")
    with pytest.raises(NotFoundError):
        ask(web, function, "other")


def test_what_is_being_cancelled_cannot_be_paused(web):
    start_upgrade(web)
    ask(web, cancel_upgrade, "web")
    with pytest.raises(RefusedError, match="being cancelled"):
        ask(web, pause_upgrade, "web")


def test_a_running_upgrade_is_told_to_ignore_windows(web):
    upgrade = start_upgrade(web)
    assert not load(web, upgrade).ignores_windows
    ask(web, ignore_windows, "web")
    assert load(web, upgrade).ignores_windows
    assert last_event(web).message == f"upgrade {upgrade} waits for maintenance windows no more"


# --- approvals ------------------------------------------------------------------------------------

CONTROL = UpgradeControl(approval=ApprovalPolicy(timeout=timedelta(minutes=5)))


@pytest.fixture
def asking(web):
    """An upgrade that has asked for the approval of its first batch."""
    upgrade = start_upgrade(web)
    with web.write() as connection:
        change_upgrade(connection, upgrade, control=CONTROL.model_dump_json())
    assert load(web, upgrade).control == CONTROL
    decide(web, AskApproval(upgrade=upgrade, batch=1, reason="batch 1 needs approval"))
    assert load(web, upgrade).approval_asked_at is not None
    assert last_event(web).message == "batch 1 needs approval"
    return upgrade


def test_an_approval_holds_for_the_batch_that_waits(web, asking):
    assert ask(web, approve_batch, "web") == (asking, 1)
    assert load(web, asking).approved_batch == 1
    with pytest.raises(RefusedError, match="no batch of upgrade"):
        ask(web, approve_batch, "web")
    decide(web, BeginBatch(upgrade=asking, batch=1, instances=("web_0",), reason="batch 1"))
    assert load(web, asking).approval_asked_at is None


def test_a_rejection_is_kept_with_its_reason(web, asking):
    assert ask(web, reject_batch, "web", reason="freeze") == asking
    found = load(web, asking)
    assert (found.cancel_asked_at, found.cancel_reason) == (LATER, "batch 1 was rejected: freeze")
    ended = EndUpgrade(upgrade=asking, code=UpgradeCode.CANCELLED, reason=found.cancel_reason)
    decide(web, ended)
    assert load(web, asking).end_reason == "batch 1 was rejected: freeze"
    with pytest.raises(RefusedError):
        ask(web, reject_batch, "web", reason="")


def test_only_what_waits_is_approved_or_rejected(web):
    start_upgrade(web)
    with pytest.raises(RefusedError, match="waits for approval"):
        ask(web, approve_batch, "web")
    with pytest.raises(RefusedError, match="waits for approval"):
        ask(web, reject_batch, "web", reason="no")


def test_the_time_for_an_approval_begins_anew_after_a_pause(web, asking):
    ask(web, pause_upgrade, "web")
    ask(web, resume_upgrade, "web")
    assert load(web, asking).approval_asked_at is None
    assert view(web).upgrade.control == CONTROL
