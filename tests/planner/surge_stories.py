"""Stories of failed instances that go back at a limit; part of `stories.py`."""

from collections.abc import Callable

from labctl.model.setup import Extension
from labctl.model.upgrade_policy import UpgradeMode
from tests.planner.happenings import apply_model, cancel, fall_ill, recover
from tests.planner.world import (
    NEW,
    PlanFunction,
    Script,
    World,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)


def breaching(plan: PlanFunction) -> World:
    """Half may fail; web_1, web_2 and web_3 never get healthy on the new image."""
    policy = make_policy(
        max_unhealthy_instance_percent=50,
        max_unhealthy_upgraded_instance_percent=50,
        rollback_failed_instances_on_policy_breach=True,
    )
    bad = {"web_1", "web_2", "web_3"}
    script = Script(health=lambda name, version, _: None if name in bad and version == NEW else 4)
    scale_set = make_set(10, spec=make_spec(10, upgrade_policy=policy))
    return World(scale_set=upgrading(scale_set, restores=False), script=script, plan=plan)


def breach_rolls_back_what_failed(plan: PlanFunction) -> World:
    """web_1 fails in a batch that is tolerated, and goes back with those of the next one."""
    return breaching(plan)


def breach_is_told_also_when_a_cancel_came_meanwhile(plan: PlanFunction) -> World:
    world = breaching(plan)
    world.at(670, "the user cancels", cancel)
    return world


def failure_that_recovers_keeps_both_disks_until_the_end(plan: PlanFunction) -> World:
    """Nothing is discarded while the upgrade may still go back; it completes, and all is tidy."""
    world = breaching(plan)
    world.script.health = lambda name, version, generation: 4
    world.at(20, "web_1 falls ill", fall_ill("web_1"))
    world.at(350, "web_1 recovers", recover("web_1"))
    return world


def bad_script_goes_back_at_the_limit(plan: PlanFunction) -> World:
    """A rollout of a model restores, too; so it is by new OS disks, not by running it again."""
    policy = make_policy(rollback_failed_instances_on_policy_breach=True)
    world = World(scale_set=make_set(3, spec=make_spec(3, upgrade_policy=policy)), plan=plan)
    world.script.extends = lambda name, version, generation: (
        world.scale_set.models[world.find(name).current.model_revision].extensions[0].script
        != "bad"
    )
    changed = apply_model(UpgradeMode.ROLLING, extensions=(Extension(name="app", script="bad"),))
    world.at(0, "the user applies a bad script in mode Rolling", changed)
    return world


SURGE_STORIES: tuple[Callable[[PlanFunction], World], ...] = (
    breach_rolls_back_what_failed,
    breach_is_told_also_when_a_cancel_came_meanwhile,
    failure_that_recovers_keeps_both_disks_until_the_end,
    bad_script_goes_back_at_the_limit,
)
