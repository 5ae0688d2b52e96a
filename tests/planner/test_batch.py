"""How many instances a batch has, and which."""

from dataclasses import replace

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.upgrade import UpgradePurpose
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.planner.batch import choose_batch, count_batches, is_reached, limit_batch
from labctl.planner.situation import survey
from tests.planner.world import (
    NEW,
    OLD,
    RICH,
    T0,
    digest,
    make_generation,
    make_instance,
    make_metrics,
    make_policy,
    make_set,
    make_spec,
    make_upgrade,
    telling,
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


def choose_told(
    count: int, wishes: dict[int, str], changes: dict[int, dict] | None = None, **policy
):
    """As `choose`, with rich health and custom metrics, which were told before `changes`."""
    spec = make_spec(count, health=RICH, upgrade_policy=make_policy(**policy))
    metrics = {f"web_{n}": text for n, text in wishes.items()}
    scale_set = upgrading(telling(make_set(count, spec=spec), metrics))
    instances = tuple(replace(i, **(changes or {}).get(i.ordinal, {})) for i in scale_set.instances)
    return choose_batch(survey(replace(scale_set, instances=instances)), scale_set.upgrade)


HALF = {"max_batch_instance_percent": 50}


def test_a_batch_stays_within_the_lowest_phase():
    wishes = {1: make_metrics(2), 4: make_metrics(0), 5: make_metrics(0), 6: make_metrics(2)}
    assert names(choose_told(8, wishes, **HALF)) == [4, 5]


def test_who_tells_no_number_comes_last():
    assert names(choose_told(8, {7: make_metrics(10**6)}, **HALF)) == [7]
    assert names(choose_told(8, {}, **HALF)) == [0, 1, 2, 3]


def test_phases_are_ordered_as_numbers_and_may_be_negative():
    wishes = {0: make_metrics(10), 1: make_metrics(9), 2: make_metrics(-1)}
    assert names(choose_told(6, wishes, **HALF)) == [2]


def test_unhealthy_instances_come_first_within_their_phase_only():
    wishes = {n: make_metrics(0) for n in range(4)} | {n: make_metrics(1) for n in range(4, 10)}
    ill = {2: {"health": ILL}, 8: {"health": ILL}}
    choice = choose_told(10, wishes, ill, prioritize_unhealthy_instances=True, **HALF)
    assert names(choice) == [2, 0, 1, 3]


def test_a_phase_waits_for_those_of_the_phase_before_that_are_on_their_way():
    wishes = {0: make_metrics(0), 1: make_metrics(1)}
    coming = {0: {"generations": (make_generation(ready_at=None),)}}
    choice = choose_told(2, wishes, coming)
    assert (names(choice), len(choice.waiting)) == ([], 1)
    same = {0: make_metrics(0), 1: make_metrics(0)}
    assert names(choose_told(2, same, coming)) == [1]


def test_who_is_skipped_does_not_hold_up_the_next_phase():
    wishes = {0: make_metrics(0, skips=True), 1: make_metrics(0), 2: make_metrics(1)}
    choice = choose_told(3, wishes, {1: {"wanted": Wanted.STOPPED}})
    assert [(s.instance.ordinal, why) for s, why in choice.skipped] == [
        (0, "its application asked for it (SkipUpgrade)"),
        (1, "stopped by its user"),
    ]
    assert names(choice) == [2]


def test_an_instance_in_its_grace_period_is_waited_for():
    choice = choose_told(2, {}, {0: {"health": WAITS}})
    assert (names(choice), [s.instance.ordinal for s in choice.waiting]) == ([1], [0])
    assert names(choose_told(2, {}, {0: {"health": ILL}})) == [0]


def test_batches_are_counted_phase_by_phase():
    scale_set = upgrading(
        telling(
            make_set(7, spec=make_spec(7, health=RICH)),
            {f"web_{n}": make_metrics(n // 3) for n in range(6)},
        )
    )
    pending, upgrade = survey(scale_set), scale_set.upgrade
    assert count_batches(pending, upgrade, 2) == 2 + 2 + 1
    assert count_batches(pending, upgrade, 100) == 3
    assert count_batches((), upgrade, 2) == 0


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
