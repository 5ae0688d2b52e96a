"""How many instances a batch has, and which."""

from dataclasses import replace

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.spec import RollingUpgradePolicy
from labctl.planner.batch import choose_batch, limit_batch
from labctl.planner.situation import survey
from tests.planner.world import (
    NEW,
    T0,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
WAITS = Health(state=HealthState.INITIALIZING, since=T0)


@pytest.mark.parametrize(
    ("total", "percent", "limit"),
    [
        (1, 20, 1),
        (5, 100, 1),
        (6, 20, 1),
        (6, 100, 6),
        (9, 20, 1),
        (10, 20, 2),
        (14, 20, 2),
        (20, 20, 4),
        (20, 5, 1),
        (39, 5, 1),
        (40, 5, 2),
        (1000, 20, 200),
    ],
)
def test_the_share_is_rounded_down_and_at_least_one(total, percent, limit):
    policy = RollingUpgradePolicy(max_batch_instance_percent=percent)
    assert limit_batch(total, policy) == limit


def choose(count: int, changes: dict[int, dict], **policy):
    instances = [make_instance(n, **changes.get(n, {})) for n in range(count)]
    spec = make_spec(count, upgrade_policy=make_policy(**policy))
    scale_set = upgrading(make_set(count, instances=instances, spec=spec))
    return choose_batch(survey(scale_set), scale_set.upgrade)


def names(choice) -> list[int]:
    return [s.instance.ordinal for s in choice.batch]


def test_unhealthy_instances_elsewhere_make_the_batch_smaller():
    assert names(choose(20, {10: {"health": ILL}, 15: {"health": ILL}})) == [0, 1]


def test_unhealthy_instances_in_the_batch_take_no_more_room():
    assert names(choose(20, {0: {"health": ILL}, 1: {"health": ILL}})) == [0, 1, 2, 3]


def test_unhealthy_instances_come_first_when_they_are_prioritized():
    ill = {10: {"health": ILL}, 15: {"health": ILL}}
    assert names(choose(20, ill, prioritize_unhealthy_instances=True)) == [10, 15, 0, 1]


def test_a_batch_has_at_least_one_however_many_are_down():
    ill = {n: {"health": ILL} for n in range(10, 16)}
    assert names(choose(20, ill)) == [0]


def test_instances_that_wait_for_their_health_count_as_down_and_may_be_taken():
    waits = {10: {"health": WAITS}}
    assert names(choose(20, waits)) == [0, 1, 2]
    assert names(choose(6, {0: {"health": WAITS}})) == [0]


def test_an_instance_on_its_way_is_waited_for():
    for generation in (make_generation(ready_at=None), make_generation(extensions=())):
        choice = choose(6, {0: {"generations": (generation,)}})
        assert names(choice) == [1]
        assert [s.instance.ordinal for s in choice.waiting] == [0]


def test_those_that_are_not_affected_are_skipped_at_their_turn():
    new = make_generation(version=NEW)
    changes = {
        0: {"generations": (new,)},
        1: {"wanted": Wanted.STOPPED},
        5: {"wanted": Wanted.STOPPED},
    }
    choice = choose(8, changes)
    assert [(s.instance.ordinal, why) for s, why in choice.skipped] == [
        (0, "runs 1.1.0 already"),
        (1, "stopped by its user"),
    ]
    assert names(choice) == [2]


def test_only_pending_members_are_chosen():
    scale_set = upgrading(make_set(6))
    members = tuple(m for m in scale_set.upgrade.members if m.ordinal != 0)
    upgrade = replace(scale_set.upgrade, members=members)
    assert names(choose_batch(survey(replace(scale_set, upgrade=upgrade)), upgrade)) == [1]


def test_one_that_is_protected_from_scale_set_actions_is_skipped():
    changes = {
        0: {"protect_from_scale_in": True, "protect_from_scale_set_actions": True},
        1: {"protect_from_scale_in": True},
    }
    choice = choose(5, changes)
    assert names(choice) == [1]
    assert [(s.instance.name, reason) for s, reason in choice.skipped] == [
        ("web_0", "protected from scale set actions")
    ]
