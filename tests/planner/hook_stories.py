"""Stories of instances that are taken out of service before a stop; part of `stories.py`."""

from dataclasses import replace
from typing import Any

from labctl.model.hook import Hook, Hooks, OnHookFailure
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from labctl.model.machine import MachineSize
from labctl.model.plan import ScaleSet
from labctl.model.upgrade_policy import UpgradeMode, UpgradePolicy
from tests.planner.happenings import (
    apply_model,
    delete_set,
    fall_ill,
    fall_ill_until,
    kill_controller,
    restart,
    scale,
)
from tests.planner.world import NEW, PlanFunction, Script, World, make_set, make_spec, upgrading

BOTH = Hooks(drain=Hook(command=("drain",)), undrain=Hook(script="undrain"))


def make_hooked_set(count: int, hooks: Hooks = BOTH, **changes: Any) -> ScaleSet:
    return make_set(
        count, spec=make_spec(count, upgrade_policy=UpgradePolicy(hooks=hooks), **changes)
    )


def drained_and_undrained_around_each_swap(plan: PlanFunction) -> World:
    return World(scale_set=upgrading(make_hooked_set(2)), plan=plan)


def drain_fails_and_the_instance_is_not_touched(plan: PlanFunction) -> World:
    script = Script(hooks=lambda name, kind, tries: kind != "drain")
    return World(scale_set=upgrading(make_hooked_set(2)), script=script, plan=plan)


def drain_fails_before_a_restart_for_a_new_model(plan: PlanFunction) -> World:
    script = Script(hooks=lambda name, kind, tries: kind != "drain")
    world = World(scale_set=make_hooked_set(2), script=script, plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, size=MachineSize(vcpus=2))
    world.at(0, "the user applies a larger size in mode Rolling", changed)
    return world


def undrain_fails_on_the_new_disk_only(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_hooked_set(2)), plan=plan)
    world.script.hooks = lambda name, kind, tries: (
        kind == "drain" or world.find(name).current.image_version != NEW
    )
    return world


def bad_disk_was_never_undrained_and_is_restored_without_a_drain(plan: PlanFunction) -> World:
    script = Script(health=lambda name, version, _: None if version == NEW else 4)
    return World(scale_set=upgrading(make_hooked_set(2)), script=script, plan=plan)


def drain_that_may_fail_holds_nothing_up(plan: PlanFunction) -> World:
    hooks = Hooks(drain=Hook(command=("drain",), on_failure=OnHookFailure.CONTINUE))
    script = Script(hooks=lambda name, kind, tries: False)
    world = World(scale_set=upgrading(make_hooked_set(2, hooks)), script=script, plan=plan)
    world.at(200, "the user restarts web_0", restart("web_0"))
    return world


def ill_instance_is_replaced_although_its_drain_fails(plan: PlanFunction) -> World:
    policy = AutomaticRepairsPolicy(enabled=True, repair_action=RepairAction.REPLACE)
    script = Script(hooks=lambda name, kind, tries: kind != "drain")
    scale_set = make_hooked_set(2, automatic_repairs_policy=policy)
    world = World(scale_set=scale_set, script=script, plan=plan)
    world.at(0, "web_1 falls ill", fall_ill_until("web_1", RepairAction.REPLACE))
    return world


def scale_in_is_tried_again_until_the_drain_succeeds(plan: PlanFunction) -> World:
    script = Script(hooks=lambda name, kind, tries: tries > 3)
    world = World(scale_set=make_hooked_set(3), script=script, plan=plan)
    world.at(0, "the user scales in to 2", scale(2))
    world.at(700, "the user deletes the scale set", delete_set)
    return world


def drains_wait_for_the_room_of_their_boots(plan: PlanFunction) -> World:
    scale_set = make_hooked_set(12)
    capacity = replace(scale_set.capacity, boots_at_once=1)
    return World(scale_set=upgrading(replace(scale_set, capacity=capacity)), plan=plan)


def controller_dies_in_drain_and_undrain(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_hooked_set(1)), plan=plan)
    world.at(4, "the controller is killed and started again", kill_controller)
    world.at(52, "the controller is killed and started again", kill_controller)
    world.at(53, "web_0 falls ill", fall_ill("web_0"))
    return world


HOOK_STORIES = (
    drained_and_undrained_around_each_swap,
    drain_fails_and_the_instance_is_not_touched,
    drain_fails_before_a_restart_for_a_new_model,
    undrain_fails_on_the_new_disk_only,
    bad_disk_was_never_undrained_and_is_restored_without_a_drain,
    drain_that_may_fail_holds_nothing_up,
    ill_instance_is_replaced_although_its_drain_fails,
    scale_in_is_tried_again_until_the_drain_succeeds,
    drains_wait_for_the_room_of_their_boots,
    controller_dies_in_drain_and_undrain,
)
