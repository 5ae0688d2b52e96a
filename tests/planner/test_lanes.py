"""Zones and update domains: who may be in one batch, and in which order."""

from dataclasses import replace

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.planner import preview
from labctl.planner.batch import choose_batch, count_batches
from labctl.planner.lanes import bound_in_zone, find_lane
from labctl.planner.situation import survey
from tests.planner.world import (
    NEW,
    RICH,
    T0,
    digest,
    make_cluster_managed,
    make_generation,
    make_metrics,
    make_policy,
    make_set,
    make_spec,
    telling,
    upgrading,
)

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
ABC = ("a", "b", "c")


def make(count: int, changes: dict[int, dict] | None = None, *, policy=None, **spec):
    scale_set = make_set(
        count, spec=make_spec(count, upgrade_policy=make_policy(**(policy or {})), **spec)
    )
    instances = tuple(replace(i, **(changes or {}).get(i.ordinal, {})) for i in scale_set.instances)
    return upgrading(replace(scale_set, instances=instances))


def choose(count: int, changes: dict[int, dict] | None = None, **kwargs) -> list[int]:
    scale_set = make(count, changes, **kwargs)
    choice = choose_batch(survey(scale_set), scale_set.upgrade)
    return [s.instance.ordinal for s in choice.batch]


def foresee(scale_set):
    return preview(
        replace(scale_set, upgrade=None), target_version=NEW, target_digest=digest(NEW), now=T0
    ).batches


def test_a_batch_stays_in_the_first_zone():
    assert choose(20, zones=ABC) == [0, 3, 6, 9]
    assert choose(20) == [0, 1, 2, 3]


def test_a_batch_spans_zones_where_that_is_allowed():
    assert choose(20, zones=ABC, policy={"enable_cross_zone_upgrade": True}) == [0, 1, 2, 3]


def test_the_next_zone_begins_when_the_one_before_is_through():
    coming = {3: {"generations": (make_generation(ready_at=None),)}}
    done = {0: {"generations": (make_generation(version=NEW),)}}
    assert choose(6, coming | done, zones=ABC) == []
    assert choose(6, {3: {"wanted": Wanted.STOPPED}} | done, zones=ABC) == [1]


def test_unhealthy_instances_come_first_within_their_zone_only():
    ill = {6: {"health": ILL}, 7: {"health": ILL}}
    policy = {"prioritize_unhealthy_instances": True}
    assert choose(20, ill, zones=ABC, policy=policy) == [6, 0, 3]


def test_phases_come_before_zones():
    scale_set = make_set(6, spec=make_spec(6, zones=ABC, health=RICH))
    told = upgrading(telling(scale_set, {"web_2": make_metrics(0), "web_1": make_metrics(0)}))
    assert [b.instances for b in foresee(told)] == [(f"web_{n}",) for n in (1, 2, 0, 3, 4, 5)]


@pytest.mark.parametrize(
    ("percent", "domains", "taken"),
    [(20, 5, 4), (50, 5, 4), (50, 3, 7), (50, 4, 5), (100, 1, 7), (100, 20, 1)],
)
def test_within_a_zone_a_batch_is_no_larger_than_the_share_of_an_update_domain(
    percent, domains, taken
):
    policy = {"max_batch_instance_percent": percent}
    assert len(choose(20, zones=ABC, update_domain_count=domains, policy=policy)) == taken


def test_update_domains_bound_nothing_without_zones_or_across_them():
    policy = {"max_batch_instance_percent": 50}
    assert len(choose(20, policy=policy)) == 10
    assert len(choose(20, zones=ABC, policy=policy | {"enable_cross_zone_upgrade": True})) == 10


def test_a_bound_of_nobody_is_the_limit():
    assert bound_in_zone(3, (), make(2, zones=ABC).upgrade) == 3


def test_a_cluster_goes_by_update_domains():
    assert [b.instances for b in foresee(make(12, **make_cluster_managed()))] == [
        ("web_0", "web_5"),
        ("web_10",),
        ("web_1", "web_6"),
        ("web_11",),
        ("web_2", "web_7"),
        ("web_3", "web_8"),
        ("web_4", "web_9"),
    ]


def test_an_update_domain_begins_when_the_one_before_is_through():
    done = {0: {"generations": (make_generation(version=NEW),)}}
    coming = {5: {"generations": (make_generation(ready_at=None),)}}
    assert choose(10, done | coming, **make_cluster_managed()) == []
    assert choose(10, done, **make_cluster_managed()) == [5]


def test_a_cluster_in_zones_goes_by_the_update_domains_of_one_zone_after_the_other():
    spec = {"zones": ("b", "a"), "update_domain_count": 2, **make_cluster_managed()}
    batches = foresee(make(10, **spec))
    assert [(b.zone, b.update_domain, b.instances) for b in batches] == [
        ("b", 0, ("web_0", "web_4")),
        ("b", 0, ("web_8",)),
        ("b", 1, ("web_2", "web_6")),
        ("a", 0, ("web_1", "web_5")),
        ("a", 0, ("web_9",)),
        ("a", 1, ("web_3", "web_7")),
    ]
    crossing = foresee(make(10, policy={"enable_cross_zone_upgrade": True}, **spec))
    assert [(b.zone, b.update_domain) for b in crossing] == [(None, 0)] * 3 + [(None, 1)] * 2


def test_a_batch_says_its_zone_and_update_domain_and_how_many_batches_there_are():
    assert [b.reason for b in foresee(make(7, zones=("1", "2")))][::4] == [
        "batch 1 of 7 to 1.1.0, zone 1: at most 1 of 7 at once",
        "batch 5 of 7 to 1.1.0, zone 2: at most 1 of 7 at once",
    ]
    spec = {"zones": ("1",), **make_cluster_managed()}
    assert foresee(make(2, **spec))[1].reason == (
        "batch 2 of 2 to 1.1.0, zone 1, update domain 1: at most 1 of 2 at once"
    )
    half = make(20, zones=ABC, policy={"max_batch_instance_percent": 50})
    assert foresee(half)[0].reason == "batch 1 of 6 to 1.1.0, zone a: at most 4 of 20 at once"


def test_batches_are_counted_lane_by_lane():
    for spec, count in (({}, 5), ({"zones": ABC}, 6), (make_cluster_managed(), 5)):
        scale_set = make(20, **spec)
        assert count_batches(survey(scale_set), scale_set.upgrade, 4) == count
        assert len(foresee(scale_set)) == count


def test_places_follow_the_newest_spec():
    scale_set = make(6)
    managed = scale_set.spec.model_copy(update=make_cluster_managed())
    changed = replace(scale_set, spec=managed)
    lanes = [find_lane(s, scale_set.upgrade) for s in survey(changed)]
    assert [lane.update_domain for lane in lanes] == [0, 1, 2, 3, 4, 0]
