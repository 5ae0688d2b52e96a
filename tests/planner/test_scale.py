"""Scaling in and out."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.model.instance import Wanted
from labctl.model.instance_policy import ScaleInPolicy, ScaleInRule
from labctl.model.plan import CreateInstance, Hold, RemoveInstance
from labctl.model.spec import Network
from labctl.model.upgrade import MemberState
from labctl.planner import find_change, plan
from labctl.planner.scale import plan_scaling
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
    make_policy,
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


def leaving(capacity: int, instances, rule=ScaleInRule.DEFAULT, **spec) -> list[str]:
    policy = ScaleInPolicy(rules=(rule,))
    wanted = make_spec(capacity, scale_in_policy=policy, **spec)
    scale_set = make_set(len(instances), instances=instances, spec=wanted)
    return [d.instance for d in plan(scale_set, T0).decisions]


ZONAL = {"zones": ("a", "b")}


def sparing(count: int, *spared: int) -> list:
    return [make_instance(n, protect_from_scale_in=n in spared) for n in range(count)]


def test_instances_leave_from_the_fullest_zone():
    assert leaving(4, sparing(5, 2, 4), **ZONAL) == ["web_0"]
    assert leaving(4, sparing(5, 2, 4)) == ["web_3"]
    assert leaving(3, sparing(5, 2, 4), **ZONAL) == ["web_0", "web_3"]


def test_a_zone_of_protected_ones_does_not_keep_others_from_leaving():
    assert leaving(2, sparing(4, 0, 2), **ZONAL) == ["web_3", "web_1"]


def test_gaps_are_evened_out_one_by_one():
    instances = [make_instance(n) for n in (0, 2, 4, 6, 1)]  # four in a, one in b
    assert leaving(2, instances, **ZONAL) == ["web_6", "web_4", "web_2"]


def test_within_a_zone_instances_leave_from_the_fullest_fault_domain():
    instances = [make_instance(n) for n in (0, 2, 4, 6, 8, 1, 3)]
    # a: web_0, web_4 and web_8 in fault domain 0, web_2 and web_6 in 1.
    assert leaving(6, instances, fault_domain_count=2, **ZONAL) == ["web_8"]
    spared = [replace(i, protect_from_scale_in=i.ordinal == 8) for i in instances]
    assert leaving(6, spared, fault_domain_count=2, **ZONAL) == ["web_4"]
    assert leaving(6, spared, **ZONAL) == ["web_6"]


@pytest.mark.parametrize(
    ("rule", "leaves"), [(ScaleInRule.OLDEST_VM, "web_2"), (ScaleInRule.NEWEST_VM, "web_0")]
)
def test_the_other_rules_balance_zones_and_not_fault_domains(rule, leaves):
    hours = {0: 1, 1: 9, 2: 5, 3: 9, 4: 3}  # web_2 is alone in its fault domain
    instances = [make_instance(n, created_at=T0 - timedelta(hours=h)) for n, h in hours.items()]
    assert leaving(4, instances, rule, fault_domain_count=2, **ZONAL) == [leaves]
    fuller = [i for i in instances if i.ordinal != 0]
    expected = {ScaleInRule.OLDEST_VM: "web_1", ScaleInRule.NEWEST_VM: "web_4"}
    assert leaving(3, fuller, rule, fault_domain_count=2, **ZONAL) == [expected[rule]]


def test_those_that_never_got_ready_leave_first_also_from_an_emptier_zone():
    never = make_generation(started_at=None, ready_at=None, extensions=())
    instances = [*sparing(3), make_instance(4), make_instance(3, generations=(never,))]
    assert leaving(4, instances, **ZONAL) == ["web_3"]


def arriving(capacity: int, *ordinals: int, **spec) -> list[int]:
    instances = [make_instance(n) for n in ordinals]
    scale_set = make_set(len(instances), instances=instances, spec=make_spec(capacity, **spec))
    return [d.ordinal for d in plan(scale_set, T0).decisions]


def test_instances_come_to_the_emptiest_zone():
    assert arriving(3, 2, 4, **ZONAL) == [1]
    assert arriving(4, 2, 4, **ZONAL) == [1, 3]
    assert arriving(5, 2, 4, **ZONAL) == [0, 1, 3]
    assert arriving(3, 2, 4) == [0]
    assert arriving(5, 0, 1, 3, 6, zones=("a", "b", "c")) == [2]


@given(st.integers(1, 5), st.sets(st.integers(0, 40), max_size=12), st.integers(1, 12))
def test_whoever_was_there_all_zones_fill_evenly_with_ordinals_below_the_capacity(
    zones, present, more
):
    names = tuple(f"z{n}" for n in range(zones))
    capacity = len(present) + more
    created = arriving(capacity, *present, zones=names)
    assert len(created) == more
    assert not set(created) & present
    assert max(created) < capacity
    counts = Counter(n % zones for n in (*present, *created))
    fewest = min(counts[zone] for zone in range(zones))
    assert all(counts[n % zones] <= fewest + 1 for n in created)


def test_the_reason_says_how_full_the_zone_is():
    scale_set = make_set(5, instances=sparing(5), spec=make_spec(3, **ZONAL))
    assert [d.reason for d in plan(scale_set, T0).decisions] == [
        "capacity is 3, present are 5, 3 in zone a",
        "capacity is 3, present are 5, 2 in zone b",
    ]


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


def test_nobody_gets_an_address_outside_of_the_subnet_while_pairs_hold_some():
    network = Network(type="nat", subnet="10.99.0.0/28")  # room for 5
    spec = make_spec(5, network=network, upgrade_policy=make_policy(max_surge=True))
    scale_set = upgrading(make_set(5, spec=spec))
    upgrade = scale_set.upgrade
    assert upgrade is not None
    first, *others = upgrade.members
    pair = replace(first, state=MemberState.SUCCEEDED, batch=1, replaced_by="web_4")
    present = tuple(make_instance(n) for n in (1, 2, 3, 4))
    changed = replace(
        scale_set,
        instances=present,
        upgrade=replace(upgrade, members=(pair, *others), batches=1, batch_ended_at=T0),
    )
    answer = plan_scaling(changed)
    assert answer.decisions == ()
    reason = "no address for web_5 in the subnet until the upgrade has ended"
    assert [hold.reason for hold in answer.holds] == [reason]
