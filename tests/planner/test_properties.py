"""Rules that hold in every run. Most are checked in each turn: see `rules.check_rules`.

There also every plan is compared with that of the same facts in another order.
"""

import pytest
from hypothesis import given

from labctl.model.instance import Wanted
from labctl.model.upgrade import MemberState
from labctl.planner import judge_health
from tests.planner.scenarios import Scenario, make_world, scenarios
from tests.planner.world import T0, World


@pytest.mark.timeout(900)  # 500 examples under coverage on a busy host
@given(scenarios)
def test_every_run_keeps_the_rules_and_ends_well(scenario: Scenario):
    world = make_world(scenario).run(turns=3000)
    check_upgrade_has_ended(world)
    check_restored_have_the_disk_of_before(world)
    check_as_many_as_wanted_and_no_disk_too_many(world)


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
    assert len(wanted) == len(world.scale_set.instances) == world.scale_set.spec.capacity
    for instance in world.scale_set.instances:
        if judge_health(instance, world.scale_set).is_healthy:
            assert [g.number for g in instance.generations] == [instance.generation]
