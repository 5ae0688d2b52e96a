"""Stories of instances that are replaced, or go back at a limit; part of `stories.py`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from labctl.model.control import CanaryPolicy, UpgradeControl
from labctl.model.instance import Wanted
from labctl.model.machine import MachineSize
from labctl.model.setup import Extension
from labctl.model.upgrade_policy import UpgradeMode
from tests.planner.happenings import (
    apply_model,
    cancel,
    delete_set,
    fall_ill,
    kill_controller,
    protect,
    recover,
    scale,
    want,
)
from tests.planner.world import (
    MIB,
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


def surging(count: int, plan: PlanFunction, *, restores: bool = True, **changes: Any) -> World:
    """An upgrade by new instances; `changes` of its policy, or `script`."""
    script = changes.pop("script", None) or Script()
    spec = make_spec(count, upgrade_policy=make_policy(max_surge=True, **changes))
    scale_set = upgrading(make_set(count, spec=spec), restores=restores)
    return World(scale_set=scale_set, script=script, plan=plan)


def new_instances_come_for_old_ones(plan: PlanFunction) -> World:
    return surging(10, plan)


def successor_fails_and_the_old_one_was_never_touched(plan: PlanFunction) -> World:
    """web_3 is the successor of web_0; of ten a fifth may fail, of one none."""
    script = Script(health=lambda name, version, _: None if version == NEW else 4)
    return surging(3, plan, script=script)


def successor_fails_and_nothing_is_restored(plan: PlanFunction) -> World:
    script = Script(boots=lambda name, version, generation: version != NEW)
    return surging(2, plan, restores=False, script=script)


def untouched_ones_count_as_rolled_back_at_a_limit(plan: PlanFunction) -> World:
    script = Script(boots=lambda name, version, generation: version != NEW)
    policy = {"rollback_failed_instances_on_policy_breach": True}
    return surging(2, plan, restores=False, script=script, **policy)


def successor_is_refused_a_credential(plan: PlanFunction) -> World:
    script = Script(refuses=lambda name, version, generation: version == NEW)
    return surging(2, plan, script=script)


def batch_without_memory_for_more_goes_in_place(plan: PlanFunction) -> World:
    """The host has memory for three; the user stops web_1 before the second batch."""
    script = Script(memory=3 * 640 * MIB + MIB)
    world = surging(3, plan, script=script, pause_time_between_batches=timedelta(minutes=1))
    world.at(40, "the user stops web_1", want("web_1", Wanted.STOPPED))
    return world


def memory_is_taken_after_the_batch_began(plan: PlanFunction) -> World:
    """The successor is given up after a while, and its forerunner upgraded in place."""

    def take(world: World) -> None:
        world.script.memory = 2 * 640 * MIB

    world = surging(2, plan)
    world.at(1, "another program takes the memory", take)
    return world


def scaling_out_takes_the_room_for_more(plan: PlanFunction) -> World:
    """What is wanted and not yet started has its part of the memory before any successor."""
    world = surging(2, plan, script=Script(memory=3 * 640 * MIB + MIB))
    world.at(1, "the user scales out to 3", scale(3))
    return world


def protected_and_stopped_ones_are_not_replaced(plan: PlanFunction) -> World:
    world = surging(4, plan)
    world.at(0, "web_0 is protected from scale-in", protect("web_0", actions=False))
    world.at(0, "web_1 is protected from scale set actions", protect("web_1", actions=True))
    world.at(0, "the user stops web_2", want("web_2", Wanted.STOPPED))
    world.at(
        40, "web_3 is protected from scale-in while web_4 comes", protect("web_3", actions=False)
    )
    return world


def scaling_while_new_instances_come(plan: PlanFunction) -> World:
    world = surging(3, plan)
    world.at(10, "the user scales out to 4", scale(4))
    world.at(45, "the user scales in to 2", scale(2))
    world.at(50, "the user scales out to 4", scale(4))
    return world


def cancel_while_new_instances_come(plan: PlanFunction) -> World:
    world = surging(3, plan)
    world.at(10, "the user cancels", cancel)
    return world


def set_is_deleted_while_new_instances_come(plan: PlanFunction) -> World:
    world = surging(2, plan)
    world.at(10, "the user deletes the scale set", delete_set)
    return world


def controller_dies_while_new_instances_come(plan: PlanFunction) -> World:
    world = surging(2, plan)
    for second in (1, 3, 10, 27, 32, 33):
        world.at(second, "the controller is killed and started again", kill_controller)
    return world


def larger_size_comes_by_new_instances(plan: PlanFunction) -> World:
    """A rollout of a model: replaced even where a restart would do."""
    spec = make_spec(2, upgrade_policy=make_policy(max_surge=True))
    world = World(scale_set=make_set(2, spec=spec), plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, size=MachineSize(vcpus=2))
    world.at(0, "the user applies a larger size in mode Rolling", changed)
    return world


def canary_that_came_new_bakes(plan: PlanFunction) -> World:
    world = surging(3, plan)
    upgrade = world.scale_set.upgrade
    assert upgrade is not None
    control = UpgradeControl(canary=CanaryPolicy())
    world.scale_set = replace(world.scale_set, upgrade=replace(upgrade, control=control))
    world.at(200, "web_3 falls ill", fall_ill("web_3"))
    return world


SURGE_STORIES: tuple[Callable[[PlanFunction], World], ...] = (
    breach_rolls_back_what_failed,
    breach_is_told_also_when_a_cancel_came_meanwhile,
    failure_that_recovers_keeps_both_disks_until_the_end,
    bad_script_goes_back_at_the_limit,
    new_instances_come_for_old_ones,
    successor_fails_and_the_old_one_was_never_touched,
    successor_fails_and_nothing_is_restored,
    untouched_ones_count_as_rolled_back_at_a_limit,
    successor_is_refused_a_credential,
    batch_without_memory_for_more_goes_in_place,
    memory_is_taken_after_the_batch_began,
    scaling_out_takes_the_room_for_more,
    protected_and_stopped_ones_are_not_replaced,
    scaling_while_new_instances_come,
    cancel_while_new_instances_come,
    set_is_deleted_while_new_instances_come,
    controller_dies_while_new_instances_come,
    larger_size_comes_by_new_instances,
    canary_that_came_new_bakes,
)
