"""How many instances a batch has, and which."""

from dataclasses import replace

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.spec import RollingUpgradePolicy
from labctl.model.upgrade import UpgradePurpose
from labctl.planner.batch import choose_batch, is_reached, limit_batch
from labctl.planner.situation import survey
from tests.planner.world import (
    NEW,
    OLD,
    T0,
    digest,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    make_upgrade,
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


def test_an_upgrade_to_a_model_takes_those_with_an_older_one_on_the_same_image():
    models = {0: 2, 1: 1, 2: 3, 3: 1}
    instances = [
        make_instance(n, generations=(make_generation(model_revision=m),))
        for n, m in models.items()
    ]
    instances[3] = make_instance(3, generations=(make_generation(version=NEW, model_revision=2),))
    spec = make_spec(4)
    scale_set = make_set(
        4, spec=spec, instances=instances, models={1: spec, 2: spec, 3: spec}, model_revision=3
    )
    goal = {"target_version": OLD, "target_digest": digest(OLD), "model_revision": 2}
    upgrade = make_upgrade(scale_set, purpose=UpgradePurpose.MODEL, **goal)
    choice = choose_batch(survey(replace(scale_set, upgrade=upgrade)), upgrade)
    assert names(choice) == [1]
    assert [(s.instance.ordinal, why) for s, why in choice.skipped] == [
        (0, "runs 1.0.0 with model 2 already"),
        (2, "runs 1.0.0 with model 3 already"),
    ]
    reached = [is_reached(upgrade, i.current) for i in instances]
    assert reached == [True, False, True, False]
    for_image = replace(upgrade, purpose=UpgradePurpose.OS_IMAGE)
    assert [is_reached(for_image, i.current) for i in instances] == [True, True, True, False]


def test_only_pending_members_are_chosen():
    scale_set = upgrading(make_set(6))
    members = tuple(m for m in scale_set.upgrade.members if m.ordinal != 0)
    upgrade = replace(scale_set.upgrade, members=members)
    assert names(choose_batch(survey(replace(scale_set, upgrade=upgrade)), upgrade)) == [1]
