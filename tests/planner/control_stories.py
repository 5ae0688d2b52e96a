"""Stories of upgrades that are held back; part of `stories.py`."""

from collections.abc import Callable

from tests.planner.happenings import cancel, fall_ill, pause, resume
from tests.planner.world import PlanFunction, World, make_set, upgrading


def user_pauses_and_resumes(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(3)), plan=plan)
    world.at(10, "the user pauses", pause)
    world.at(200, "the user resumes", resume)
    return world


def paused_upgrade_is_cancelled(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(3)), plan=plan)
    world.at(10, "the user pauses", pause)
    world.at(200, "the user cancels", cancel)
    return world


def upgraded_instance_falls_ill_in_a_pause(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(3)), plan=plan)
    world.at(10, "the user pauses", pause)
    world.at(200, "web_0 falls ill", fall_ill("web_0"))
    return world


CONTROL_STORIES: tuple[Callable[[PlanFunction], World], ...] = (
    user_pauses_and_resumes,
    paused_upgrade_is_cancelled,
    upgraded_instance_falls_ill_in_a_pause,
)
