"""A step that the host does not let through waits; nobody else does."""

from dataclasses import replace
from datetime import timedelta

from labctl.model.instance import DomainFacts, Power, Wanted
from labctl.model.plan import AwaitReady, Hold, Setback, Start, Stop
from labctl.planner import plan
from tests.planner.world import T0, make_generation, make_instance, make_set

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
