"""What the next batch waits for; whole runs are in the stories."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.control import (
    NO_CONTROL,
    ApprovalDefault,
    ApprovalPolicy,
    ApprovalScope,
    CanaryPolicy,
)
from labctl.model.instance import DomainFacts, Health, HealthState, Power, Wanted
from labctl.model.machine import ImageReference
from labctl.model.plan import AskApproval, BeginBatch, EndUpgrade, Hold
from labctl.model.plan import Rollout as RolloutWish
from labctl.model.upgrade import (
    MemberState,
    StartedBy,
    UpgradeCode,
    UpgradeErrorCode,
    UpgradePurpose,
)
from labctl.model.upgrade_policy import (
    AutomaticOsUpgradePolicy,
    RollingUpgradePolicy,
    UpgradeMode,
    UpgradePolicy,
)
from labctl.model.window import MaintenanceWindow
from labctl.planner import (
    Offer,
    Rollout,
    Timing,
    admit_upgrade,
    decide_rollout,
    explain,
    plan,
    preview,
)
from labctl.planner.foresight import record
from tests.planner.control_stories import approving, in_windows
from tests.planner.world import (
    NEW,
    T0,
    digest,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

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


# --- maintenance windows --------------------------------------------------------------------------

AT_ONE = MaintenanceWindow(start="13:00", duration=HOUR)  # T0 is 12:00 UTC


def waiting(**changes):
    return upgrading(in_windows(3, AT_ONE), **changes)


def test_the_hold_tells_when_the_next_window_opens():
    answer = plan(waiting(), T0)
    assert answer.holds == (
        Hold(
            subject="web",
            reason="waits for the maintenance window of 2026-01-01 13:00 UTC",
            until=T0 + HOUR,
        ),
    )
    assert isinstance(plan(waiting(), T0 + HOUR).decisions[0], BeginBatch)
    assert not plan(waiting(), T0 + 2 * HOUR).decisions


def test_who_asked_to_ignore_windows_does_not_wait():
    assert isinstance(plan(waiting(ignores_windows=True), T0).decisions[0], BeginBatch)


def test_an_upgrade_is_cancelled_outside_of_its_windows():
    assert isinstance(plan(waiting(cancel_asked_at=T0), T0).decisions[0], EndUpgrade)


def test_a_running_batch_goes_on_when_the_window_closes():
    begun = waiting()
    for _ in range(2):
        for decision in plan(begun, T0 + HOUR).decisions:
            begun = record(begun, decision, T0 + HOUR)
    assert plan(begun, T0 + 5 * HOUR).actions


def test_windows_hold_as_the_newest_spec_has_them():
    changed = in_windows(3, replace_start("14:00"))
    (hold,) = plan(replace(waiting(), spec=changed.spec), T0 + HOUR).holds
    assert hold.until == T0 + 2 * HOUR


def replace_start(start: str) -> MaintenanceWindow:
    return AT_ONE.model_copy(update={"start": start})


def test_an_unknown_time_zone_keeps_windows_shut():
    scale_set = replace(waiting(), clocks={})
    (hold,) = plan(scale_set, T0 + HOUR).holds
    assert "does not know the time zone (UTC)" in hold.reason
    assert hold.until is None


def test_mode_automatic_waits_for_a_window_too():
    scale_set = in_windows(2, AT_ONE, mode=UpgradeMode.AUTOMATIC)
    newer = replace(
        scale_set,
        models=scale_set.models | {2: scale_set.spec},
        model_revision=2,
        rollout=RolloutWish(asked_at=T0),
    )
    answer = plan(newer, T0)
    assert answer.decisions == ()
    assert [h.reason for h in answer.holds] == [
        "model 2 waits for the maintenance window of 2026-01-01 13:00 UTC"
    ]
    assert plan(newer, T0 + HOUR).decisions


def test_a_rollout_that_concerns_nobody_does_not_wait_for_a_window():
    scale_set = in_windows(2, AT_ONE, mode=UpgradeMode.ROLLING)
    assert plan(replace(scale_set, rollout=RolloutWish(asked_at=T0)), T0).decisions


def test_an_automatic_upgrade_begins_in_a_window():
    switched = AutomaticOsUpgradePolicy(enable_automatic_os_upgrade=True)
    scale_set = in_windows(2, AT_ONE, automatic_os_upgrade_policy=switched)
    offer = Offer(
        image=ImageReference(definition="tiny", version=NEW), digest=digest(NEW), available_at=T0
    )
    at_once = Timing(first_within=timedelta(0), later_from=timedelta(0), later_to=timedelta(0))
    options = {"offer": offer, "enabled_at": T0, "past": (), "timing": at_once}
    assert decide_rollout(scale_set, **options, now=T0) == Hold(
        subject="web",
        reason="1.1.0 waits for the maintenance window of 2026-01-01 13:00 UTC",
        until=T0 + HOUR,
    )
    assert isinstance(decide_rollout(scale_set, **options, now=T0 + HOUR), Rollout)


def test_a_preview_counts_the_time_to_the_window():
    values = {"target_version": NEW, "target_digest": digest(NEW), "now": T0}
    found = preview(in_windows(2, AT_ONE), **values)
    assert [batch.after_pause for batch in found.batches] == [HOUR, timedelta(0)]
    found = preview(in_windows(2, AT_ONE), **values, ignores_windows=True)
    assert [batch.after_pause for batch in found.batches] == [timedelta(0), timedelta(0)]


# --- approvals ------------------------------------------------------------------------------------


def asked(at=T0, **changes):
    scale_set = approving(2, **changes)
    return replace(scale_set, upgrade=replace(scale_set.upgrade, approval_asked_at=at))


def change(scale_set, **changes):
    return replace(scale_set, upgrade=replace(scale_set.upgrade, **changes))


def test_an_approval_is_asked_for_before_the_first_batch():
    (ask,) = plan(approving(2), T0).decisions
    assert ask == AskApproval(
        upgrade=7,
        batch=1,
        reason="batch 1 (web_0) needs the approval of a person: labctl upgrade approve web",
    )
    assert record(approving(2), ask, T0).upgrade.approval_asked_at == T0


def test_the_hold_tells_what_waits_for_whom_and_until_when():
    (hold,) = plan(asked(), T0).holds
    assert hold.until == T0 + HOUR
    assert hold.reason == (
        "batch 1 (web_0) waits for the approval of a person until 2026-01-01 13:00 UTC and is "
        "rejected then: labctl upgrade approve web, or labctl upgrade reject web"
    )


def test_an_approved_batch_begins_and_the_next_is_asked_for_anew():
    scale_set = change(asked(before=ApprovalScope.EACH_BATCH), approved_batch=1)
    (begin,) = plan(scale_set, T0).decisions
    begun = record(scale_set, begin, T0)
    assert begun.upgrade.approval_asked_at is None
    between = replace(
        scale_set,
        upgrade=replace(begun.upgrade, batch_ended_at=T0, members=begun.upgrade.members[1:]),
    )
    (ask,) = plan(between, T0).decisions
    assert isinstance(ask, AskApproval)
    assert ask.batch == 2


def test_silence_rejects_at_the_end_of_the_time_and_not_before():
    assert plan(asked(), T0 + HOUR - timedelta(seconds=1)).holds
    (ended,) = plan(asked(), T0 + HOUR).decisions
    assert (ended.code, ended.reason) == (
        UpgradeCode.CANCELLED,
        "batch 1 was not approved within 1h, 2 not upgraded",
    )


def test_silence_rejects_outside_of_a_window_too():
    scale_set = in_windows(2, AT_ONE, approval=ApprovalPolicy())
    scale_set = upgrading(scale_set, approval_asked_at=T0 - HOUR)
    assert isinstance(plan(scale_set, T0).decisions[0], EndUpgrade)


def test_silence_is_consent_where_the_policy_says_so():
    scale_set = asked(on_timeout=ApprovalDefault.APPROVE)
    (hold,) = plan(scale_set, T0).holds
    assert "and begins then" in hold.reason
    assert isinstance(plan(scale_set, T0 + HOUR).decisions[0], BeginBatch)


def test_nobody_has_to_answer_in_a_pause():
    (hold,) = plan(change(asked(), paused_at=T0), T0 + 5 * HOUR).holds
    assert "paused by its user" in hold.reason


def test_nothing_is_asked_before_a_window_opens():
    scale_set = upgrading(in_windows(2, AT_ONE, approval=ApprovalPolicy()))
    (hold,) = plan(scale_set, T0).holds
    assert "maintenance window" in hold.reason
    assert isinstance(plan(scale_set, T0 + HOUR).decisions[0], AskApproval)


def test_limits_are_judged_before_an_approval_is_asked_for():
    ill = Health(state=HealthState.UNHEALTHY, since=T0 - HOUR, detail="HTTP 503")
    scale_set = asked()
    sick = replace(scale_set, instances=tuple(make_instance(n, health=ill) for n in range(2)))
    (ended,) = plan(sick, T0).decisions
    assert ended.code is UpgradeCode.FAULTED


def test_a_rejection_ends_the_upgrade_with_its_reason():
    scale_set = change(asked(), cancel_asked_at=T0, cancel_reason="batch 1 was rejected: freeze")
    (ended,) = plan(scale_set, T0).decisions
    assert ended.reason == "batch 1 was rejected: freeze, 2 not upgraded"
    assert record(scale_set, ended, T0).upgrade.end_reason == ended.reason


def test_a_preview_takes_approvals_for_granted_and_names_them():
    scale_set = replace(approving(2, before=ApprovalScope.EACH_BATCH), upgrade=None)
    values = {"target_version": NEW, "target_digest": digest(NEW), "now": T0}
    found = preview(scale_set, **values)
    assert [batch.needs_approval for batch in found.batches] == [True, True]
    found = preview(replace(approving(2), upgrade=None), **values)
    assert [batch.needs_approval for batch in found.batches] == [True, False]


# --- canaries -------------------------------------------------------------------------------------


def baking(count=8, instances=2, **changes):
    limits = RollingUpgradePolicy(max_batch_instance_percent=50)
    canary = CanaryPolicy(instances=instances, bake_time=HOUR)
    policy = UpgradePolicy(canary=canary, rolling_upgrade_policy=limits)
    return upgrading(make_set(count, spec=make_spec(count, upgrade_policy=policy)), **changes)


def baked(since=T0, **changes):
    """web_0 is the canary, upgraded at T0; the other may be taken at any time."""
    scale_set = baking(batches=1, batch_ended_at=T0)
    upgraded = make_instance(
        0,
        generation=2,
        generations=(make_generation(2, version=NEW),),
        domain=DomainFacts(generation=2, power=Power.RUNNING),
        health=Health(state=HealthState.HEALTHY, since=since),
        **changes,
    )
    done = replace(scale_set.upgrade.members[0], state=MemberState.SUCCEEDED, batch=1)
    members = (done, *scale_set.upgrade.members[1:])
    changed = replace(scale_set, instances=(upgraded, *scale_set.instances[1:]))
    return replace(changed, upgrade=replace(scale_set.upgrade, members=members))


@pytest.mark.parametrize(("instances", "taken"), [(1, 1), (2, 2), (4, 4), (1000, 4)])
def test_the_first_batch_has_as_many_as_the_canary_and_the_limit_allow(instances, taken):
    (begin,) = plan(baking(instances=instances), T0).decisions
    assert len(begin.instances) == taken
    assert f"canary, at most {taken} of 8 at once" in begin.reason


def test_later_batches_have_their_usual_size():
    (begin,) = plan(baked(), T0 + HOUR).decisions
    assert begin.instances == ("web_1", "web_2", "web_3", "web_4")
    assert "canary" not in begin.reason


def test_the_next_batch_waits_for_the_whole_bake_time():
    (hold,) = plan(baked(), T0 + HOUR / 2).holds
    assert hold.reason == "bake time of the canary (web_0), 1800 s left"
    assert hold.until == T0 + HOUR
    assert isinstance(plan(baked(), T0 + HOUR).decisions[0], BeginBatch)


def test_the_bake_time_counts_from_the_last_recovery():
    (hold,) = plan(baked(since=T0 + HOUR / 4), T0 + HOUR).holds
    assert hold.until == T0 + HOUR * 5 / 4


def test_a_canary_that_its_user_stopped_proves_nothing_any_more():
    stopped = baked(since=T0 + 3 * HOUR, wanted=Wanted.STOPPED)
    begins = [d for d in plan(stopped, T0 + HOUR).decisions if isinstance(d, BeginBatch)]
    assert begins


def test_a_set_of_one_needs_no_bake_time():
    scale_set = baked()
    alone = replace(
        scale_set,
        instances=scale_set.instances[:1],
        spec=scale_set.spec.model_copy(update={"capacity": 1}),
        upgrade=replace(scale_set.upgrade, members=scale_set.upgrade.members[:1]),
    )
    (ended,) = plan(alone, T0).decisions
    assert ended.code is UpgradeCode.COMPLETED


def ill(since, **changes):
    """As `baked`, with a canary that the limits tolerate though it has been ill since then."""
    scale_set = baked(**changes)
    sick = Health(state=HealthState.UNHEALTHY, since=since, detail="HTTP 503")
    canary = replace(scale_set.instances[0], health=sick)
    limits = RollingUpgradePolicy(
        max_batch_instance_percent=50, max_unhealthy_upgraded_instance_percent=100
    )
    return replace(
        scale_set,
        instances=(canary, *scale_set.instances[1:]),
        upgrade=replace(scale_set.upgrade, policy=limits, health_timeout=HOUR / 6),
    )


def test_an_ill_canary_has_its_time_for_health_and_then_stops_the_upgrade():
    fell_ill, last = T0 + HOUR / 4, T0 + HOUR / 4 + HOUR / 6
    answer = plan(ill(fell_ill), last - HOUR / 60)
    (hold,) = [h for h in answer.holds if h.subject == "web"]
    assert hold.reason == ("bake time of the canary begins anew when web_0 is healthy, 60 s left")
    assert (answer.decisions, hold.until) == ((), last)
    (ended,) = plan(ill(fell_ill), last).decisions
    assert (ended.code, ended.error.code) == (
        UpgradeCode.FAULTED,
        UpgradeErrorCode.CANARY_UNHEALTHY,
    )
    assert ended.reason == (
        "canary web_0 fell ill and was not healthy again within 600 s: HTTP 503"
    )


def test_the_time_of_an_ill_canary_does_not_begin_before_its_batch_has_ended():
    assert plan(ill(T0 - HOUR), T0 + HOUR / 6 - HOUR / 60).decisions == ()
    assert isinstance(plan(ill(T0 - HOUR), T0 + HOUR / 6).decisions[0], EndUpgrade)


def test_a_paused_canary_is_ill_for_certain_and_one_that_starts_again_is_waited_for():
    scale_set = ill(T0 + HOUR)

    def with_power(power, **changes):
        canary = scale_set.instances[0]
        changed = replace(canary, domain=replace(canary.domain, power=power), **changes)
        return replace(scale_set, instances=(changed, *scale_set.instances[1:]))

    (ended,) = plan(with_power(Power.PAUSED), T0 + HOUR / 60).decisions
    assert ended.error.code is UpgradeErrorCode.CANARY_UNHEALTHY
    assert plan(with_power(Power.STOPPED), T0 + 9 * HOUR).decisions == ()


def test_an_ill_instance_stops_nothing_where_there_is_no_canary():
    scale_set = ill(T0)
    plain = replace(scale_set, upgrade=replace(scale_set.upgrade, control=NO_CONTROL))
    assert isinstance(plan(plain, T0 + 9 * HOUR).decisions[0], BeginBatch)


def test_a_preview_tells_canary_and_bake_time():
    values = {"target_version": NEW, "target_digest": digest(NEW), "now": T0}
    found = preview(replace(baking(), upgrade=None), **values)
    assert [len(batch.instances) for batch in found.batches] == [2, 4, 2]
    assert [batch.after_pause for batch in found.batches] == [timedelta(0), HOUR, timedelta(0)]
