"""Scaling in and out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import Wanted
from labctl.model.instance_policy import ScaleInPolicy, ScaleInRule
from labctl.model.plan import CreateInstance, Hold, RemoveInstance
from labctl.planner import find_change, plan
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)


def decisions(capacity: int, *instances, **changes):
    scale_set = make_set(capacity, instances=instances, spec=make_spec(capacity), **changes)
    return plan(scale_set, T0).decisions


def test_the_lowest_missing_ordinals_are_created():
    reason = "capacity is 4, present are 2"
    assert decisions(4, make_instance(0), make_instance(2)) == (
        CreateInstance(ordinal=1, reason=reason),
        CreateInstance(ordinal=3, reason=reason),
    )


def test_a_stopped_instance_counts_as_present():
    assert decisions(1, make_instance(0, wanted=Wanted.STOPPED)) == ()


def test_an_ordinal_that_is_being_deleted_is_waited_for():
    leaving = make_instance(1, wanted=Wanted.DELETED)
    scale_set = make_set(2, instances=[make_instance(0), leaving])
    answer = plan(scale_set, T0)
    assert answer.decisions == ()
    assert answer.holds == (
        Hold(subject="web", reason="web_1 is created again when its deletion is through"),
    )


def test_the_newest_leave_first():
    reason = "capacity is 1, present are 3"
    assert decisions(1, *(make_instance(n) for n in (2, 0, 1))) == (
        RemoveInstance(instance="web_2", reason=reason),
        RemoveInstance(instance="web_1", reason=reason),
    )


def test_those_that_never_got_ready_leave_before_the_newest():
    never = make_generation(started_at=None, ready_at=None, extensions=())
    reason = "capacity is 2, present are 3"
    unready = make_instance(0, generations=(never,))
    assert decisions(2, unready, make_instance(1), make_instance(2)) == (
        RemoveInstance(instance="web_0", reason=reason),
    )


def test_a_protected_instance_stays_and_the_next_one_leaves():
    reason = "capacity is 2, present are 4"
    protected = make_instance(3, protect_from_scale_in=True)
    assert decisions(2, *(make_instance(n) for n in range(3)), protected) == (
        RemoveInstance(instance="web_2", reason=reason),
        RemoveInstance(instance="web_1", reason=reason),
    )


def test_a_protected_instance_that_never_got_ready_stays():
    never = make_generation(started_at=None, ready_at=None, extensions=())
    unready = make_instance(1, generations=(never,), protect_from_scale_in=True)
    assert [d.instance for d in decisions(1, make_instance(0), unready)] == ["web_0"]


def test_more_protected_ones_than_wanted_are_held_with_their_names():
    protected = [make_instance(n, protect_from_scale_in=True) for n in (1, 0)]
    scale_set = make_set(2, instances=[*protected, make_instance(2)], spec=make_spec(1))
    assert [d.instance for d in plan(scale_set, T0).decisions] == ["web_2"]
    left = make_set(2, instances=protected, spec=make_spec(1))
    assert plan(left, T0).decisions == ()
    assert plan(left, T0).holds == (
        Hold(
            subject="web",
            reason="capacity is 1, present are 2, but all are protected from scale-in: web_0, "
            "web_1; raise the capacity, or: labctl instance unprotect INSTANCE",
        ),
    )


def test_deleting_the_scale_set_removes_protected_ones_too():
    protected = make_instance(0, protect_from_scale_in=True, protect_from_scale_set_actions=True)
    scale_set = make_set(1, instances=[protected], is_deleting=True)
    assert [d.instance for d in plan(scale_set, T0).decisions] == ["web_0"]


@pytest.mark.parametrize(
    ("rule", "leaves"),
    [
        (ScaleInRule.DEFAULT, ["web_3", "web_2"]),
        (ScaleInRule.OLDEST_VM, ["web_2", "web_1"]),
        (ScaleInRule.NEWEST_VM, ["web_0", "web_3"]),
    ],
)
def test_the_policy_says_who_leaves_first(rule, leaves):
    # web_0 was replaced an hour ago. Made in one turn, the lower ordinal is the older.
    hours = {0: 1, 1: 5, 2: 6, 3: 5}
    instances = [make_instance(n, created_at=T0 - timedelta(hours=h)) for n, h in hours.items()]
    policy = ScaleInPolicy(rules=(rule,))
    scale_set = make_set(4, instances=instances, spec=make_spec(2, scale_in_policy=policy))
    assert [d.instance for d in plan(scale_set, T0).decisions] == leaves


def test_one_in_the_middle_of_a_swap_has_been_ready_before():
    new = make_generation(2, started_at=None, ready_at=None, extensions=())
    swapping = make_instance(0, generation=2, generations=(make_generation(), new))
    assert decisions(1, swapping, make_instance(1)) == (
        RemoveInstance(instance="web_1", reason="capacity is 1, present are 2"),
    )


def test_deleting_the_scale_set_removes_all_and_cancels_its_upgrade():
    scale_set = upgrading(make_set(2, is_deleting=True))
    answer = plan(scale_set, T0)
    assert [d.instance for d in answer.decisions] == ["web_0", "web_1"]
    gone = replace(
        scale_set,
        instances=tuple(replace(i, wanted=Wanted.DELETED) for i in scale_set.instances),
    )
    assert [(d.code, d.reason) for d in plan(gone, T0).decisions] == [
        ("Cancelled", "the scale set is being deleted")
    ]


def test_a_number_that_changes_is_told_until_it_is_as_wanted():
    assert find_change(make_set(2)) is None
    fewer = make_set(2, instances=[make_instance(0)])
    assert find_change(fewer) == "capacity is 2, present are 1"
    leaving = make_set(1, instances=[make_instance(0), make_instance(1, wanted=Wanted.DELETED)])
    assert find_change(leaving) == "web_1 being deleted"


def test_more_protected_instances_than_the_capacity_are_no_change():
    kept = [make_instance(n, protect_from_scale_in=True) for n in range(3)]
    assert find_change(make_set(3, instances=kept, spec=make_spec(1))) is None
    one_free = [*kept[:2], make_instance(2)]
    found = find_change(make_set(3, instances=one_free, spec=make_spec(1)))
    assert found == "capacity is 1, present are 3"
