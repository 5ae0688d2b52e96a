"""What the next batch waits for; whole runs are in the stories."""

from dataclasses import replace
from datetime import timedelta

from labctl.model.plan import BeginBatch, EndUpgrade, Hold
from labctl.model.upgrade import StartedBy, UpgradeCode, UpgradePurpose
from labctl.planner import admit_upgrade, explain, plan
from tests.planner.world import NEW, T0, digest, make_set, upgrading

HOUR = timedelta(hours=1)


def paused(**changes):
    return upgrading(make_set(3), paused_at=T0, **changes)


def test_a_paused_upgrade_begins_no_batch_and_says_so():
    answer = plan(paused(), T0 + HOUR)
    assert answer.decisions == ()
    assert answer.holds == (
        Hold(
            subject="web",
            reason="upgrade 7 is paused by its user since 2026-01-01 12:00 UTC; "
            "to go on: labctl upgrade resume web",
        ),
    )


def test_a_paused_upgrade_of_a_model_waits_too():
    scale_set = paused(purpose=UpgradePurpose.MODEL, model_revision=2)
    scale_set = replace(scale_set, models=scale_set.models | {2: scale_set.spec}, model_revision=2)
    assert not plan(scale_set, T0).decisions
    resumed = replace(scale_set, upgrade=replace(scale_set.upgrade, paused_at=None))
    assert isinstance(plan(resumed, T0).decisions[0], BeginBatch)


def test_a_paused_upgrade_of_the_platform_still_ends_when_it_is_opted_out_of():
    (ended,) = plan(paused(started_by=StartedBy.PLATFORM), T0).decisions
    assert isinstance(ended, EndUpgrade)
    assert ended.code is UpgradeCode.CANCELLED


def test_a_paused_upgrade_is_cancelled_at_once():
    (ended,) = plan(paused(cancel_asked_at=T0), T0).decisions
    assert isinstance(ended, EndUpgrade)


def test_a_refusal_and_the_explanation_tell_of_the_pause():
    refusal = admit_upgrade(paused(), target_version=NEW, target_digest=digest(NEW), now=T0)
    assert refusal is not None
    assert refusal.message.endswith("and is paused by its user")
    assert "labctl upgrade resume web" in refusal.hint
    lines = explain(paused(), paused().instances[0], T0)
    assert "upgrade 7 to 1.1.0 (RollingForward, paused by its user): Pending" in lines
    assert lines[-1].startswith("next: nothing; the scale set: upgrade 7 is paused by its user")
