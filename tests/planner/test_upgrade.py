"""How a running upgrade moves on: one turn at a time. Whole runs are in the stories."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from labctl.model.instance import (
    DomainFacts,
    Failure,
    Health,
    HealthState,
    Instance,
    Power,
    Rung,
    Wanted,
)
from labctl.model.plan import (
    BeginBatch,
    CollectEvidence,
    EndBatch,
    EndUpgrade,
    Hold,
    MoveMember,
    Plan,
    ScaleSet,
    Start,
    Stop,
)
from labctl.model.upgrade import MemberState, UpgradeCode
from labctl.planner import plan
from tests.planner.world import (
    NEW,
    RICH,
    T0,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

STARTED = T0 + timedelta(seconds=10)
READY = T0 + timedelta(seconds=30)
SETTLED = T0 + timedelta(seconds=40)
LATE = SETTLED + timedelta(seconds=300)
ILL = Health(state=HealthState.UNHEALTHY, since=READY, detail="HTTP 503")
FINE = Health(state=HealthState.HEALTHY, since=READY)
NEW_DISK = make_generation(2, version=NEW, started_at=STARTED, ready_at=READY)


def swapped(**changes) -> Instance:
    """web_0 on its new disk."""
    values = {
        "generation": 2,
        "generations": (make_generation(), NEW_DISK),
        "domain": DomainFacts(generation=2, power=Power.RUNNING),
        "health": ILL,
    }
    return make_instance(0, **(values | changes))


def restored(**changes) -> Instance:
    """web_0 back on its old disk."""
    values = {
        "generations": (
            make_generation(started_at=STARTED, ready_at=READY),
            replace(NEW_DISK, evidence_at=T0),
        ),
        "health": ILL,
    }
    return make_instance(0, **(values | changes))


def in_batch(
    instance: Instance, state: MemberState = MemberState.IN_PROGRESS, **changes
) -> ScaleSet:
    """Batch 1 of 2 with `instance` in it; it has settled at SETTLED, unless told otherwise."""
    scale_set = upgrading(make_set(2), batches=1)
    scale_set = replace(scale_set, instances=(instance, make_instance(1)))
    member = replace(
        scale_set.upgrade.members[0],
        state=state,
        batch=1,
        from_generation=1,
        to_generation=2,
        settled_at=SETTLED,
        message="not healthy" if state is MemberState.ROLLING_BACK else "",
    )
    member = replace(member, **{k: v for k, v in changes.items() if hasattr(member, k)})
    upgrade_changes = {k: v for k, v in changes.items() if not hasattr(member, k)}
    members = (member, scale_set.upgrade.members[1])
    return replace(
        scale_set, upgrade=replace(scale_set.upgrade, members=members, **upgrade_changes)
    )


def evidence(instance: Instance) -> Instance:
    generations = (*instance.generations[:-1], replace(instance.generations[-1], evidence_at=T0))
    return replace(instance, generations=generations)


def move(state: MemberState, reason: str) -> Plan:
    return Plan(decisions=(MoveMember(upgrade=7, instance="web_0", state=state, reason=reason),))


def at(seconds: float) -> datetime:
    return SETTLED + timedelta(seconds=seconds)


def test_a_member_that_is_healthy_has_succeeded():
    assert plan(in_batch(swapped(health=FINE)), at(1)) == move(
        MemberState.SUCCEEDED, "healthy on 1.1.0"
    )


def test_a_healthy_member_succeeds_even_when_the_controller_looks_too_late():
    assert plan(in_batch(swapped(health=FINE)), at(3000)) == move(
        MemberState.SUCCEEDED, "healthy on 1.1.0"
    )


def test_health_of_the_old_disk_does_not_count_for_the_new_one():
    stale = Health(state=HealthState.HEALTHY, since=T0)
    assert plan(in_batch(swapped(health=stale)), at(1)).decisions == ()


def test_the_wait_for_health_is_told_with_its_end():
    assert plan(in_batch(swapped()), at(259)) == Plan(
        holds=(
            Hold(
                subject="web_0",
                reason="waiting for health of web_0, 41 s of 300 s left: HTTP 503",
                until=LATE,
            ),
        )
    )


def test_evidence_comes_first_when_the_time_is_over():
    scale_set = in_batch(swapped())
    assert plan(scale_set, at(299.9)).actions == ()
    assert plan(scale_set, at(300)).actions == (
        CollectEvidence(
            instance="web_0",
            generation=2,
            upgrade=7,
            reason="not healthy within 300 s: HTTP 503",
        ),
    )


def test_then_the_old_disk_is_restored_or_not():
    reason = "not healthy within 300 s: HTTP 503"
    saved = evidence(swapped())
    assert plan(in_batch(saved), at(300)) == move(MemberState.ROLLING_BACK, reason)
    assert plan(in_batch(saved, restores=False), at(300)) == move(MemberState.FAILED, reason)


def test_the_time_counts_only_from_when_extensions_are_through():
    scale_set = in_batch(swapped(), settled_at=None)
    assert plan(scale_set, at(3000)) == Plan(
        holds=(Hold(subject="web_0", reason="waiting for health: HTTP 503"),)
    )


@pytest.mark.parametrize(
    ("power", "reason"), [(Power.PAUSED, "paused (I/O)"), (Power.CRASHED, "crashed (I/O)")]
)
def test_a_member_whose_guest_stands_still_has_failed(power, reason):
    dead = swapped(domain=DomainFacts(generation=2, power=power, reason="I/O"))
    actions = plan(in_batch(dead, settled_at=None), at(1)).actions
    assert [(type(a), a.reason) for a in actions] == [(CollectEvidence, reason)]


def test_a_crash_on_the_disk_that_is_left_anyway_is_no_failure_of_the_new_one():
    crashed = swapped(domain=DomainFacts(generation=1, power=Power.CRASHED, reason="panicked"))
    assert plan(in_batch(crashed, settled_at=None), at(1)).actions == (
        Stop(instance="web_0", reason="batch 1: 1.0.0 -> 1.1.0"),
    )


def test_a_recorded_failure_does_not_wait_for_the_deadline():
    failure = Failure(rung=Rung.CUSTOM_DATA, message="exit code 1", at=READY)
    failed = swapped(generations=(make_generation(), replace(NEW_DISK, failure=failure)))
    actions = plan(in_batch(failed, settled_at=None), at(-5)).actions
    assert [(type(a), a.reason) for a in actions] == [(CollectEvidence, "custom-data: exit code 1")]


def test_a_restored_member_must_become_healthy_on_the_old_disk():
    assert plan(in_batch(restored(health=FINE), MemberState.ROLLING_BACK), at(1)) == move(
        MemberState.ROLLED_BACK, "not healthy; healthy again on 1.0.0"
    )
    scale_set = in_batch(restored(), MemberState.ROLLING_BACK)
    assert [h.reason for h in plan(scale_set, at(1)).holds] == [
        "waiting for health of web_0 on the restored disk, 299 s of 300 s left: HTTP 503"
    ]
    assert plan(scale_set, at(300)) == move(
        MemberState.ROLLBACK_FAILED,
        "not healthy; on the restored disk: not healthy within 300 s: HTTP 503",
    )


def test_an_old_failure_of_the_old_disk_does_not_count_against_its_restore():
    old = Failure(rung=Rung.HEALTH, message="crashed", at=T0 - timedelta(minutes=1))
    back = restored(
        generations=(make_generation(failure=old), replace(NEW_DISK, evidence_at=T0)),
        domain=DomainFacts(generation=1, power=Power.STOPPED),
    )
    answer = plan(in_batch(back, MemberState.ROLLING_BACK, settled_at=None), at(1))
    assert answer == Plan(
        actions=(Start(instance="web_0", generation=1, reason="batch 1: back to 1.0.0"),)
    )


def test_a_user_s_own_step_goes_on_while_the_upgrade_waits():
    restart = swapped(restart_asked_at=at(1))
    answer = plan(in_batch(restart), at(2))
    assert answer == Plan(actions=(Stop(instance="web_0", reason="its user asked for a restart"),))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [(Wanted.STOPPED, "stopped by its user meanwhile"), (Wanted.DELETED, "deleted meanwhile")],
)
def test_a_member_that_its_user_takes_away_is_skipped(wanted, why):
    scale_set = in_batch(swapped(wanted=wanted))
    scale_set = replace(scale_set, spec=make_spec(2 if wanted is Wanted.STOPPED else 1))
    assert plan(scale_set, at(1)) == move(MemberState.SKIPPED, why)


def test_to_take_away_a_member_in_its_restore_does_not_hide_the_failure():
    scale_set = in_batch(restored(wanted=Wanted.STOPPED), MemberState.ROLLING_BACK)
    assert plan(scale_set, at(1)) == move(
        MemberState.ROLLBACK_FAILED, "not healthy; stopped by its user meanwhile"
    )


def test_a_pending_member_without_instance_is_skipped():
    scale_set = upgrading(make_set(2))
    scale_set = replace(scale_set, instances=scale_set.instances[1:], spec=make_spec(1))
    assert plan(scale_set, T0) == move(MemberState.SKIPPED, "deleted meanwhile")


def test_nobody_is_judged_while_the_hypervisor_is_away():
    lost = swapped(domain=DomainFacts(generation=None, power=Power.UNKNOWN))
    answer = plan(in_batch(lost), LATE)
    assert (answer.decisions, answer.actions) == ((), ())
    assert answer.holds[0] == Hold(
        subject="web", reason="upgrade 7 waits: the hypervisor does not answer"
    )


def rested(state: MemberState, **changes) -> ScaleSet:
    """Batch 1 is at rest; by default it ended at T0."""
    good = swapped(health=FINE, generations=(NEW_DISK,))
    return in_batch(good, state, **({"batch_ended_at": T0} | changes))


def test_a_batch_ends_when_all_have_come_to_rest():
    answer = plan(rested(MemberState.SUCCEEDED, batch_ended_at=None), T0)
    assert answer == Plan(
        decisions=(EndBatch(upgrade=7, batch=1, reason="every instance has come to rest"),)
    )


def test_the_next_batch_begins():
    assert plan(rested(MemberState.SUCCEEDED), T0) == Plan(
        decisions=(
            BeginBatch(
                upgrade=7,
                batch=2,
                instances=("web_1",),
                reason="batch 2 of 2 to 1.1.0: at most 1 of 2 at once",
            ),
        )
    )


def ends(answer: Plan) -> tuple[UpgradeCode, str]:
    (decision,) = answer.decisions
    assert isinstance(decision, EndUpgrade)
    return decision.code, decision.reason


def test_a_cancel_counts_between_batches():
    scale_set = rested(MemberState.SUCCEEDED, cancel_asked_at=T0)
    assert ends(plan(scale_set, T0)) == (UpgradeCode.CANCELLED, "cancelled, 1 not upgraded")


def test_a_cancel_does_not_hide_that_the_image_is_bad():
    scale_set = rested(MemberState.FAILED, cancel_asked_at=T0, message="HTTP 503")
    code, reason = ends(plan(scale_set, T0))
    assert code is UpgradeCode.FAULTED
    assert reason == (
        "unhealthy after the upgrade to 1.1.0: 1 of 1 (100 %), more than 20 %; "
        "first web_0: HTTP 503"
    )


def test_a_cancel_after_the_last_batch_changes_nothing():
    scale_set = rested(MemberState.SUCCEEDED, cancel_asked_at=T0)
    members = tuple(replace(m, state=MemberState.SUCCEEDED) for m in scale_set.upgrade.members)
    done = replace(scale_set, upgrade=replace(scale_set.upgrade, members=members))
    assert ends(plan(done, T0)) == (UpgradeCode.COMPLETED, "no instance is left to upgrade")


def test_a_pause_is_kept_to_its_end_and_a_cancel_cuts_it_short():
    policy = make_policy(pause_time_between_batches=timedelta(seconds=60)).rolling_upgrade_policy
    scale_set = rested(MemberState.SUCCEEDED, policy=policy)
    until = T0 + timedelta(seconds=60)
    assert plan(scale_set, until - timedelta(seconds=1)).holds == (
        Hold(subject="web", reason="pause before batch 2, 1 s left", until=until),
    )
    assert plan(scale_set, until).decisions
    cancelled = replace(scale_set, upgrade=replace(scale_set.upgrade, cancel_asked_at=T0))
    assert ends(plan(cancelled, T0))[0] is UpgradeCode.CANCELLED


def test_the_next_batch_waits_for_instances_that_are_not_up_yet():
    scale_set = rested(MemberState.SUCCEEDED)
    late = make_instance(1, generations=(make_generation(ready_at=None),))
    scale_set = replace(scale_set, instances=(scale_set.instances[0], late))
    answer = plan(scale_set, T0)
    assert answer.holds == (
        Hold(subject="web", reason="the next batch waits for web_1: not up yet"),
    )


def test_the_rest_is_skipped_without_a_look_at_the_limits():
    scale_set = rested(MemberState.SUCCEEDED)
    stopped = make_instance(1, wanted=Wanted.STOPPED)
    ill = replace(scale_set.instances[0], health=FINE)
    answer = plan(replace(scale_set, instances=(ill, stopped)), T0)
    assert answer.decisions == (
        MoveMember(
            upgrade=7,
            instance="web_1",
            state=MemberState.SKIPPED,
            reason="stopped by its user",
        ),
    )


def test_an_upgrade_that_has_ended_decides_nothing_more():
    scale_set = rested(MemberState.FAILED, code=UpgradeCode.FAULTED)
    assert plan(scale_set, T0).decisions == ()


def test_the_next_batch_waits_for_who_is_initializing_and_says_so():
    starting = Health(state=HealthState.INITIALIZING, since=T0)
    scale_set = upgrading(make_set(1, spec=make_spec(1, health=RICH)))
    waits = replace(scale_set, instances=(make_instance(0, health=starting),))
    reason = "the next batch waits for web_0: health is initializing"
    assert plan(waits, T0).holds[0] == Hold(subject="web", reason=reason)
    assert plan(waits, T0).decisions == ()
    for state in (HealthState.UNHEALTHY, HealthState.UNKNOWN):
        ill = Health(state=state, since=T0)
        judged = plan(replace(scale_set, instances=(make_instance(0, health=ill),)), T0)
        assert [type(decision) for decision in judged.decisions] == [EndUpgrade]


def test_a_member_of_the_batch_that_is_initializing_is_waited_for_and_unknown_is_not_healthy():
    rich = make_spec(2, health=RICH)
    for state in (HealthState.INITIALIZING, HealthState.UNKNOWN):
        scale_set = in_batch(swapped(health=Health(state=state, since=READY)))
        scale_set = replace(scale_set, spec=rich, models={1: rich})
        early = plan(scale_set, SETTLED + timedelta(seconds=1))
        assert early.decisions == ()
        assert [hold.subject for hold in early.holds if "waiting for health" in hold.reason]
        assert [type(action) for action in plan(scale_set, LATE).actions] == [CollectEvidence]
