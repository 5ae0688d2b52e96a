"""When an automatic upgrade begins, and why not."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.machine import ImageReference
from labctl.model.plan import Hold, ScaleSet
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    Upgrade,
    UpgradeCode,
    UpgradeError,
    UpgradeErrorCode,
)
from labctl.model.upgrade_policy import (
    AutomaticOsUpgradePolicy,
    RollingUpgradePolicy,
    UpgradePolicy,
)
from labctl.planner import Offer, Rollout, Timing, decide_rollout, plan
from labctl.planner.automatic import find_due
from tests.planner.world import (
    NEW,
    OLD,
    RICH,
    T0,
    digest,
    make_generation,
    make_instance,
    make_metrics,
    make_set,
    make_spec,
    make_upgrade,
    telling,
    upgrading,
)

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
ON = UpgradePolicy(
    automatic_os_upgrade_policy=AutomaticOsUpgradePolicy(enable_automatic_os_upgrade=True)
)
AT_ONCE = Timing(first_within=timedelta(0), later_from=timedelta(0), later_to=timedelta(0))
HOUR = timedelta(hours=1)


def automatic(count: int = 5, **changes) -> ScaleSet:
    return make_set(count, spec=make_spec(count, upgrade_policy=ON), **changes)


def offer(version: str = NEW, at: datetime = T0, definition: str = "tiny") -> Offer:
    reference = ImageReference(definition=definition, version=version)
    return Offer(image=reference, digest=digest(version), available_at=at)


def decide(scale_set: ScaleSet, **changes) -> Rollout | Hold:
    values = {
        "offer": offer(),
        "enabled_at": T0 - 24 * HOUR,
        "past": (),
        "timing": AT_ONCE,
        "now": T0 + timedelta(minutes=5),
    }
    return decide_rollout(scale_set, **(values | changes))


def reason(scale_set: ScaleSet, **changes) -> str:
    decision = decide(scale_set, **changes)
    assert isinstance(decision, Hold)
    return decision.reason


def attempt(scale_set: ScaleSet, code: UpgradeCode, **changes) -> Upgrade:
    made = make_upgrade(scale_set, code=code, started_by=StartedBy.PLATFORM)
    return replace(made, **({"started_at": T0, "ended_at": T0} | changes))


def test_a_newer_version_is_rolled_out():
    decision = decide(automatic())
    assert isinstance(decision, Rollout)
    assert decision.offer == offer()
    assert decision.reason == (
        "5 instances run an older image than tiny/1.1.0, offered since 2026-01-01 12:00 UTC"
    )


@pytest.mark.parametrize("uses", [True, False])
def test_the_policy_of_the_spec_bounds_it_or_the_defaults_do(uses):
    # One of two is ill: 50 % may be by the policy, 20 % by the defaults.
    automatic_policy = AutomaticOsUpgradePolicy(
        enable_automatic_os_upgrade=True, use_rolling_upgrade_policy=uses
    )
    limits = RollingUpgradePolicy(max_unhealthy_instance_percent=50)
    policy = UpgradePolicy(
        automatic_os_upgrade_policy=automatic_policy, rolling_upgrade_policy=limits
    )
    assert policy.automatic_limits == (limits if uses else RollingUpgradePolicy())
    instances = (make_instance(0, health=ILL), make_instance(1))
    spec = make_spec(2, upgrade_policy=policy)
    decision = decide(make_set(2, spec=spec, instances=instances))
    assert isinstance(decision, Rollout) == uses


def test_nothing_happens_where_it_is_off():
    assert reason(make_set(5)) == "automatic OS upgrades are off"
    assert reason(automatic(), enabled_at=None) == "automatic OS upgrades are off"


def test_without_an_offer_nothing_happens():
    assert reason(automatic(), offer=None) == "no version of 'tiny' is offered here as latest"


def test_a_running_upgrade_comes_first():
    assert reason(upgrading(automatic())) == "upgrade 7 to 1.1.0 is running"


def test_what_runs_the_offer_or_something_newer_is_left_alone():
    newer = make_instance(0, generations=(make_generation(version="1.10.0"),))
    same = make_instance(1, generations=(make_generation(version=NEW),))
    assert "up to date" in reason(automatic(2, instances=[newer, same]))
    older = make_instance(2)
    mixed = automatic(3, instances=[newer, same, older])
    decision = decide(mixed)
    assert isinstance(decision, Rollout)
    assert decision.reason.startswith("1 instances")


def test_versions_of_another_definition_are_older_whatever_their_number():
    spec = make_spec(1, upgrade_policy=ON, image=ImageReference(definition="other"))
    before = make_spec(1)
    moved = make_set(1, spec=spec, models={1: before, 2: spec}, model_revision=2)
    assert isinstance(
        decide(moved, offer=offer(OLD.replace("1", "0"), definition="other")), Rollout
    )


def test_a_stopped_instance_asks_for_nothing():
    stopped = make_instance(0, wanted=Wanted.STOPPED)
    assert "up to date" in reason(automatic(1, instances=[stopped]))


def test_an_unhealthy_set_waits_with_the_reason_of_the_page():
    ill = automatic(instances=[make_instance(n, health=ILL) for n in range(5)])
    assert reason(ill).startswith(
        "1.1.0 waits: MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade: "
    )


@pytest.mark.parametrize("code", [UpgradeCode.FAULTED, UpgradeCode.CANCELLED])
def test_what_failed_or_was_cancelled_is_not_tried_again(code):
    ended = attempt(automatic(), code)
    assert f"upgrade 7 to 1.1.0 ended {code.value}" in reason(automatic(), past=[ended])


def test_the_reason_of_the_failed_attempt_is_told():
    error = UpgradeError(code=UpgradeErrorCode.UNHEALTHY_UPGRADED, message="1 of 1 (100 %)")
    ended = attempt(automatic(), UpgradeCode.FAULTED, error=error)
    assert "ended Faulted (1 of 1 (100 %)); it is tried again" in reason(automatic(), past=[ended])


@pytest.mark.parametrize(
    "changes",
    [
        {"target_digest": digest("1.0.5")},  # of another version
        {"model_revision": 0},  # with another model
        {"started_at": T0 - 48 * HOUR},  # before automatic upgrades were switched on again
    ],
)
def test_an_attempt_of_another_kind_does_not_count(changes):
    ended = attempt(automatic(), UpgradeCode.FAULTED, **changes)
    assert isinstance(decide(automatic(), past=[ended]), Rollout)


def test_the_last_attempt_counts_whatever_the_order():
    first = attempt(automatic(), UpgradeCode.FAULTED, id=1)
    second = attempt(automatic(), UpgradeCode.COMPLETED, id=2, members=())
    for past in ([first, second], [second, first]):
        assert isinstance(decide(automatic(), past=past), Rollout)


def test_who_was_skipped_by_a_completed_upgrade_gets_his_turn_who_failed_does_not():
    members = tuple(
        Member(instance=f"web_{n}", ordinal=n, state=state)
        for n, state in enumerate([MemberState.SKIPPED, MemberState.ROLLED_BACK])
    )
    both = automatic(2)
    ended = attempt(both, UpgradeCode.COMPLETED, members=members)
    assert isinstance(decide(both, past=[ended]), Rollout)
    alone = automatic(1, instances=[make_instance(1)])
    assert "failed on web_1 in upgrade 7" in reason(alone, past=[ended])


def test_the_first_rollout_waits_up_to_the_whole_time_from_switching_on():
    timing = Timing(first_within=3 * HOUR, later_from=timedelta(0), later_to=timedelta(0))
    old = offer(at=T0 - 72 * HOUR)
    due = find_due("web", old, enabled_at=T0, timing=timing)
    assert T0 <= due <= T0 + 3 * HOUR
    before = decide(
        automatic(), offer=old, enabled_at=T0, timing=timing, now=due - timedelta(seconds=1)
    )
    assert before == Hold(subject="web", reason="1.1.0 is rolled out at its time", until=due)
    at = decide(automatic(), offer=old, enabled_at=T0, timing=timing, now=due)
    assert isinstance(at, Rollout)


def test_a_later_version_waits_30_to_60_minutes_from_its_offer():
    due = find_due("web", offer(), enabled_at=T0 - 100 * HOUR, timing=Timing())
    assert timedelta(minutes=30) <= due - T0 <= timedelta(minutes=60)


def test_a_version_offered_soon_after_switching_on_waits_for_both():
    soon = offer(at=T0 + timedelta(minutes=1))
    timing = Timing(first_within=timedelta(0))
    due = find_due("web", soon, enabled_at=T0, timing=timing)
    assert due >= soon.available_at + timedelta(minutes=30)


def test_a_hundred_sets_do_not_begin_at_once():
    names = [f"set-{n}" for n in range(100)]
    dues = [find_due(n, offer(), enabled_at=T0 - 100 * HOUR, timing=Timing()) for n in names]
    slots = {int((due - T0) / timedelta(minutes=3)) for due in dues}
    assert slots == set(range(10, 20))  # in each of the ten slots of 3 minutes somebody begins
    again = [find_due(n, offer(), enabled_at=T0 - 100 * HOUR, timing=Timing()) for n in names]
    assert again == dues


@given(
    enabled=st.integers(-(10**6), 10**6),
    available=st.integers(-(10**6), 10**6),
    jumps=st.lists(st.integers(-(10**6), 10**6), max_size=8),
)
def test_a_clock_that_jumps_only_delays_or_hastens(enabled, available, jumps):
    """Whatever the clock said before, the answer depends on its time of now alone."""
    scale_set, now = automatic(), T0
    on = T0 + timedelta(seconds=enabled)
    made = offer(at=T0 + timedelta(seconds=available))
    due = find_due("web", made, enabled_at=on, timing=Timing())
    for jump in jumps:
        now += timedelta(seconds=jump)
        decision = decide(scale_set, offer=made, enabled_at=on, timing=Timing(), now=now)
        assert isinstance(decision, Rollout) is (now >= due)


def test_switching_off_ends_a_platform_upgrade_before_the_next_batch():
    off = upgrading(make_set(5), started_by=StartedBy.PLATFORM, batches=1, batch_ended_at=T0)
    decisions = plan(off, T0).decisions
    assert [(d.code, d.reason) for d in decisions] == [
        (UpgradeCode.CANCELLED, "automatic OS upgrades were switched off, 5 not upgraded")
    ]
    by_user = upgrading(make_set(5), batches=1, batch_ended_at=T0)
    assert "batch 2 of 6" in plan(by_user, T0).decisions[0].reason


def test_switching_off_lets_the_running_batch_finish():
    members = tuple(
        Member(
            instance=f"web_{n}",
            ordinal=n,
            state=MemberState.IN_PROGRESS if n == 0 else MemberState.PENDING,
            batch=1 if n == 0 else None,
            from_generation=1 if n == 0 else None,
            to_generation=2 if n == 0 else None,
        )
        for n in range(5)
    )
    first = make_instance(
        0,
        generation=2,
        generations=(
            make_generation(),
            make_generation(2, NEW, prepared=False, started_at=None, ready_at=None, extensions=()),
        ),
    )
    others = [make_instance(n) for n in range(1, 5)]
    moving = upgrading(
        make_set(5, instances=[first, *others]),
        started_by=StartedBy.PLATFORM,
        batches=1,
        members=members,
    )
    answer = plan(moving, T0)
    assert not answer.decisions
    assert [a.instance for a in answer.actions] == ["web_0"]


def test_what_an_upgrade_would_skip_begins_none():
    """Otherwise one upgrade after the other would begin, skip them and complete."""
    guarded = make_instance(0, protect_from_scale_in=True, protect_from_scale_set_actions=True)
    assert "up to date" in reason(automatic(1, instances=[guarded]))
    spec = make_spec(1, upgrade_policy=ON, health=RICH)
    told = telling(make_set(1, spec=spec), {"web_0": make_metrics(0, skips=True)})
    assert "up to date" in reason(told)
    assert isinstance(decide(telling(make_set(1, spec=spec), {"web_0": make_metrics(0)})), Rollout)


def test_instances_that_come_or_go_are_waited_for():
    scale_set = automatic(3)
    wider = replace(scale_set, spec=scale_set.spec.model_copy(update={"capacity": 4}))
    assert reason(wider) == ("1.1.0 waits: instances come or go: capacity is 4, present are 3")


def test_more_protected_instances_than_the_capacity_are_upgraded_as_they_are():
    scale_set = automatic(3)
    kept = tuple(replace(i, protect_from_scale_in=True) for i in scale_set.instances)
    spec = scale_set.spec.model_copy(update={"capacity": 2})
    assert isinstance(decide(replace(scale_set, instances=kept, spec=spec)), Rollout)


def test_why_the_last_attempt_was_cancelled_is_told():
    scale_set = automatic()
    last = attempt(scale_set, UpgradeCode.CANCELLED, end_reason="too late today, 4 not upgraded")
    assert "ended Cancelled (too late today, 4 not upgraded); it is tried again" in reason(
        scale_set, past=[last]
    )
