"""A step that the host does not let through waits; nobody else does."""

from dataclasses import replace
from datetime import timedelta

from labctl.model.instance import DomainFacts, Power, Wanted
from labctl.model.plan import AwaitReady, CollectEvidence, Hold, MoveMember, Setback, Start, Stop
from labctl.model.upgrade import MemberState
from labctl.planner import plan
from tests.planner.world import T0, make_generation, make_instance, make_set, upgrading

SECOND = timedelta(seconds=1)
UNTIL = T0 + 8 * SECOND
FAULT = "cannot start 'web_0': one of its disks is in use by another program"


def starting(ordinal, **changes):
    """Defined and off, never switched on."""
    fresh = make_generation(started_at=None, ready_at=None, extensions=())
    off = DomainFacts(generation=1, power=Power.STOPPED)
    return make_instance(ordinal, generations=(fresh,), domain=off, **changes)


def set_back(*instances, step="Start", **capacity):
    scale_set = make_set(len(instances), instances=instances)
    return replace(
        scale_set,
        capacity=replace(scale_set.capacity, **capacity),
        setbacks={"web_0": Setback(step=step, reason=FAULT, until=UNTIL)},
    )


def test_the_step_waits_with_its_reason_and_the_others_go_on():
    answer = plan(set_back(starting(0), starting(1)), T0 + SECOND)
    assert [(type(a), a.instance) for a in answer.actions] == [(Start, "web_1")]
    assert answer.holds == (
        Hold(
            subject="web_0",
            reason=f"Start failed, tried again in 7 s: {FAULT}",
            until=UNTIL,
        ),
    )


def test_it_is_tried_again_at_its_time():
    assert plan(set_back(starting(0)), UNTIL).actions[0].instance == "web_0"


def test_another_step_of_the_instance_does_not_wait():
    leaving = make_instance(0, wanted=Wanted.STOPPED)
    (stop,) = plan(set_back(leaving), T0).actions
    assert isinstance(stop, Stop)


def test_who_waits_takes_no_boot_from_the_others():
    booting = make_instance(2, generations=(make_generation(ready_at=None, extensions=()),))
    answer = plan(set_back(starting(0), starting(1), booting, boots_at_once=2), T0)
    assert [(type(a), a.instance) for a in answer.actions] == [
        (Start, "web_1"),
        (AwaitReady, "web_2"),
    ]


def refused_in_batch(**changes):
    """web_0 is in a batch, and the host refuses its next step."""
    scale_set = upgrading(make_set(2))
    upgrade = scale_set.upgrade
    assert upgrade is not None
    first, second = upgrade.members
    member = replace(
        first,
        state=MemberState.IN_PROGRESS,
        batch=1,
        from_generation=1,
        to_generation=2,
        admitted_at=T0,
        **changes,
    )
    fresh = make_generation(2, "1.1.0", started_at=None, ready_at=None, extensions=())
    is_off = "stopped_at" in changes
    domain = DomainFacts(generation=1, power=Power.STOPPED if is_off else Power.RUNNING)
    before = make_generation(started_at=None, ready_at=None) if is_off else make_generation()
    instance = make_instance(0, generation=2, generations=(before, fresh), domain=domain)
    step = "Define" if is_off else "Prepare"
    return replace(
        scale_set,
        instances=(instance, make_instance(1)),
        setbacks={"web_0": Setback(step=step, reason=FAULT, until=T0 + timedelta(days=1))},
        upgrade=replace(upgrade, members=(member, second), batches=1),
    )


def test_a_member_that_the_host_refuses_fails_when_its_time_is_over():
    stopped = refused_in_batch(stopped_at=T0)
    assert plan(stopped, T0 + timedelta(seconds=299)).decisions == ()
    (collect,) = [
        a
        for a in plan(stopped, T0 + timedelta(seconds=300)).actions
        if isinstance(a, CollectEvidence)
    ]
    assert collect.reason == f"Define failed again and again for 300 s: {FAULT}"


def test_one_that_was_not_stopped_yet_is_left_as_it_was():
    assert plan(refused_in_batch(), T0 + timedelta(seconds=299)).decisions == ()
    (move,) = plan(refused_in_batch(), T0 + timedelta(seconds=300)).decisions
    assert isinstance(move, MoveMember)
    assert (move.state, move.is_untouched) == (MemberState.FAILED, True)
