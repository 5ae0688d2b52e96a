"""Stories of repairs, protection and scale-in, over simulated hours."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from labctl.model.instance_policy import (
    AutomaticRepairsPolicy,
    RepairAction,
    ScaleInPolicy,
    ScaleInRule,
)
from labctl.model.spec import ScaleSetSpec
from tests.planner.happenings import (
    die,
    fall_ill,
    fall_ill_until,
    kill_controller,
    protect,
    recover,
    resume_repairs,
    scale,
    start_upgrade,
)
from tests.planner.world import (
    T0,
    PlanFunction,
    Script,
    World,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

HOUR = 3600


def repairing(capacity: int, action: RepairAction, **changes: Any) -> ScaleSetSpec:
    policy = AutomaticRepairsPolicy(enabled=True, repair_action=action)
    return make_spec(capacity, automatic_repairs_policy=policy, **changes)


def repair_by_restart(plan: PlanFunction) -> World:
    spec = repairing(5, RepairAction.RESTART)
    world = World(scale_set=make_set(5, spec=spec), plan=plan)
    world.at(
        HOUR, "web_2 falls ill until it is restarted", fall_ill_until("web_2", spec_action(spec))
    )
    world.at(HOUR + 90, "web_2 falls ill again", fall_ill_until("web_2", spec_action(spec)))
    return world


def spec_action(spec: ScaleSetSpec) -> RepairAction:
    return spec.automatic_repairs_policy.repair_action


def repair_by_reimage_with_a_dying_controller(plan: PlanFunction) -> World:
    spec = repairing(2, RepairAction.REIMAGE)
    world = World(scale_set=make_set(2, spec=spec), plan=plan)
    cure = fall_ill_until("web_1", RepairAction.REIMAGE)
    world.at(2 * HOUR, "web_1 falls ill until it is reimaged", cure)
    for second in (1, 4, 6, 15, 33):
        world.at(2 * HOUR + second, "the controller is killed and started again", kill_controller)
    return world


def repair_by_replacement_one_at_a_time(plan: PlanFunction) -> World:
    spec = repairing(3, RepairAction.REPLACE)
    world = World(scale_set=make_set(3, spec=spec), plan=plan)
    world.at(HOUR, "web_0 falls ill for good", fall_ill_until("web_0", RepairAction.REPLACE))
    world.at(HOUR, "web_2 falls ill for good", fall_ill_until("web_2", RepairAction.REPLACE))
    return world


def repairs_are_suspended_and_resumed(plan: PlanFunction) -> World:
    spec = repairing(4, RepairAction.RESTART)
    world = World(scale_set=make_set(4, spec=spec), plan=plan)
    world.at(HOUR, "web_3 falls ill, whatever is done", fall_ill("web_3"))
    world.at(HOUR + 60, "web_1 falls ill, too", fall_ill_until("web_1", RepairAction.RESTART))
    world.at(4 * HOUR, "somebody mends web_3", recover("web_3"))
    world.at(5 * HOUR, "the user resumes repairs", resume_repairs)
    return world


def repairs_of_forty_at_most_two_at_once(plan: PlanFunction) -> World:
    spec = repairing(40, RepairAction.RESTART)
    world = World(scale_set=make_set(40, spec=spec), plan=plan)
    for name in ("web_5", "web_17", "web_30", "web_39"):
        world.at(HOUR, f"{name} falls ill", fall_ill_until(name, RepairAction.RESTART))
    return world


def repairs_that_do_not_help_are_suspended_after_one_round(plan: PlanFunction) -> World:
    spec = repairing(100, RepairAction.RESTART)
    world = World(scale_set=make_set(100, spec=spec), plan=plan)
    for ordinal in range(0, 70, 10):
        world.at(HOUR, f"web_{ordinal} falls ill", fall_ill(f"web_{ordinal}"))
    return world


def repairs_leave_some_alone(plan: PlanFunction) -> World:
    """The protected, what an upgrade moves, what is not provisioned, what merely went off."""
    spec = repairing(4, RepairAction.REPLACE)
    script = Script(boots=lambda name, version, generation: name != "web_4")
    world = World(scale_set=make_set(4, spec=spec), script=script, plan=plan)
    world.at(HOUR, "web_1 is protected from scale-in", protect("web_1", actions=False))
    world.at(HOUR, "web_1 falls ill", fall_ill("web_1"))
    world.at(2 * HOUR, "web_1 recovers", recover("web_1"))
    world.at(3 * HOUR, "upgrade to 1.1.0 is asked for", start_upgrade())
    cure = fall_ill_until("web_0", RepairAction.REPLACE)
    world.at(3 * HOUR + 60, "web_0 falls ill for good", cure)
    world.at(5 * HOUR, "web_2 goes off by itself", die("web_2"))
    world.at(6 * HOUR, "the user scales out to 5", scale(5))
    return world


def repairs_begin_when_the_grace_period_is_over(plan: PlanFunction) -> World:
    spec = repairing(2, RepairAction.RESTART)
    script = Script(
        health=lambda name, version, generation: None if name == "web_1" else 4,
    )
    world = World(scale_set=make_set(0, spec=spec), script=script, plan=plan)
    world.at(15 * 60, "web_1 is taken out of the set", scale(1))
    return world


def protected_instances_are_spared(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(5)), plan=plan)
    world.at(0, "web_1 is protected", protect("web_1", actions=True))
    world.at(0, "web_4 is protected from scale-in", protect("web_4", actions=False))
    world.at(40, "the user scales in to 2", scale(2))
    world.at(500, "the user scales in to 1", scale(1))
    return world


def scale_in_of_the_oldest(plan: PlanFunction) -> World:
    policy = ScaleInPolicy(rules=(ScaleInRule.OLDEST_VM,))
    ages = (1, 3, 2, 3)
    instances = [
        make_instance(n, created_at=T0 - timedelta(hours=age)) for n, age in enumerate(ages)
    ]
    spec = make_spec(4, scale_in_policy=policy)
    world = World(scale_set=make_set(4, spec=spec, instances=instances), plan=plan)
    world.at(5, "the user scales in to 2", scale(2))
    world.at(60, "the user scales out to 3", scale(3))
    world.at(120, "the user turns to the newest", newest_first)
    world.at(120, "the user scales in to 2", scale(2))
    return world


def newest_first(world: World) -> None:
    policy = ScaleInPolicy(rules=(ScaleInRule.NEWEST_VM,))
    spec = world.scale_set.spec.model_copy(update={"scale_in_policy": policy})
    world.scale_set = replace(world.scale_set, spec=spec)


REPAIR_STORIES = (
    repair_by_restart,
    repair_by_reimage_with_a_dying_controller,
    repair_by_replacement_one_at_a_time,
    repairs_are_suspended_and_resumed,
    repairs_of_forty_at_most_two_at_once,
    repairs_that_do_not_help_are_suspended_after_one_round,
    repairs_leave_some_alone,
    repairs_begin_when_the_grace_period_is_over,
    protected_instances_are_spared,
    scale_in_of_the_oldest,
)
