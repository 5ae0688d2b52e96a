"""Rules that hold in every run. Most are checked in each turn: see `rules.check_rules`.

There also every plan is compared with that of the same facts in another order.
"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.model.instance import Wanted
from labctl.model.upgrade import MemberState
from labctl.planner import judge_health
from labctl.planner.batch import limit_batch
from tests.planner.scenarios import Scenario, make_world, model_scenarios, scenarios
from tests.planner.surge_rules import is_serving
from tests.planner.world import T0, World, real_plan


@pytest.mark.timeout(900)  # 500 examples under coverage on a busy host
@given(scenarios)
def test_every_run_keeps_the_rules_and_ends_well(scenario: Scenario):
    world = make_world(scenario).run(turns=3000)
    check_upgrade_has_ended(world)
    check_restored_have_the_disk_of_before(world)
    check_as_many_as_wanted_and_no_disk_too_many(world)


@pytest.mark.timeout(900)
@given(model_scenarios)
def test_every_run_to_a_new_model_keeps_the_rules_and_ends_well(scenario: Scenario):
    world = make_world(scenario).run(turns=4000)
    check_upgrade_has_ended(world)
    check_restored_have_the_disk_of_before(world)
    check_as_many_as_wanted_and_no_disk_too_many(world)
    check_no_disk_for_what_needs_none(scenario, world)
    assert world.scale_set.rollout is None


@pytest.mark.timeout(900)
@given(
    st.builds(
        replace,
        scenarios,
        surges=st.just(True),
        spare=st.just(16),
        events=st.just(()),
        protected=st.just(frozenset()),  # they are upgraded in place
    )
)
def test_by_new_instances_never_fewer_serve_than_at_the_start(scenario: Scenario):
    seen = []

    def watching(scale_set, now):
        serving = sum(is_serving(scale_set, i) for i in scale_set.instances)
        seen.append((serving, len(scale_set.instances)))
        return real_plan(scale_set, now)

    world = make_world(scenario, watching).run(turns=3000)
    check_upgrade_has_ended(world)
    check_as_many_as_wanted_and_no_disk_too_many(world)
    upgrade = world.scale_set.upgrade
    assert upgrade is not None
    assert min(serving for serving, _ in seen) == scenario.count
    assert max(total for _, total in seen) <= scenario.count + limit_batch(
        scenario.count, upgrade.policy
    )
    replaced = {m.instance for m in upgrade.members if m.state is MemberState.SUCCEEDED}
    assert not replaced & {i.name for i in world.scale_set.instances}, "upgraded in place"


def check_no_disk_for_what_needs_none(scenario: Scenario, world: World) -> None:
    """Only where a way back is kept, the image changes, or custom data does."""
    has_swaps = any(kind == "model" for _, kind, _ in scenario.events)
    keeps_way_back = scenario.restores or scenario.goes_back or scenario.surges
    if keeps_way_back or not scenario.keeps_image or scenario.model == "swap" or has_swaps:
        return
    assert all(i.generation == 1 for i in world.scale_set.instances)
    assert not any(line.split()[1] == "Define" and " 2:" in line for line in world.log)


def check_upgrade_has_ended(world: World) -> None:
    upgrade = world.scale_set.upgrade
    assert upgrade is not None
    assert upgrade.code.is_final, "\n".join(world.log[-20:])
    assert not any(m.state.is_moving for m in upgrade.members)


def check_restored_have_the_disk_of_before(world: World) -> None:
    upgrade = world.scale_set.upgrade
    assert upgrade is not None
    for member in upgrade.members:
        instance = next((i for i in world.scale_set.instances if i.name == member.instance), None)
        # One that was deleted and created again meanwhile has nothing to do with the old one.
        is_same = instance is not None and instance.created_at < T0
        if member.state is MemberState.ROLLED_BACK and is_same:
            assert instance.generation == member.from_generation
            assert instance.current.image_version == member.from_version


def check_as_many_as_wanted_and_no_disk_too_many(world: World) -> None:
    wanted = [i for i in world.scale_set.instances if i.wanted is not Wanted.DELETED]
    protected = sum(i.protect_from_scale_in for i in wanted)
    expected = max(world.scale_set.spec.capacity, protected)
    assert len(wanted) == len(world.scale_set.instances) == expected
    for instance in world.scale_set.instances:
        if judge_health(instance, world.scale_set).is_healthy:
            assert [g.number for g in instance.generations] == [instance.generation]
