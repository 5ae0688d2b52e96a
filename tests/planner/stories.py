"""Whole runs as stories; `test_stories.py` compares each with its golden file."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from labctl.model.instance import Wanted
from labctl.model.plan import HostCapacity
from labctl.model.spec import Extension
from tests.planner.happenings import (
    cancel,
    delete_set,
    die,
    fall_ill,
    kill_controller,
    recover,
    restart,
    scale,
    start_upgrade,
    want,
)
from tests.planner.repair_stories import REPAIR_STORIES
from tests.planner.world import (
    MIB,
    NEW,
    OLD,
    PlanFunction,
    Script,
    World,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    real_plan,
    upgrading,
)

Story = Callable[[PlanFunction], World]


def never_healthy(name: str, version: str, generation: int) -> int | None:
    return None if version == NEW else 4


def provisioning_two_ordered_extensions(plan: PlanFunction) -> World:
    extensions = (
        Extension(name="app", script="true", provision_after_extensions=("base",)),
        Extension(name="base", script="true"),
    )
    return World(scale_set=make_set(0, spec=make_spec(2, extensions=extensions)), plan=plan)


def provisioning_bound_by_memory_and_boots(plan: PlanFunction) -> World:
    room = HostCapacity(boots_at_once=2, free_memory=0, overhead_per_instance=128 * MIB)
    world = World(
        scale_set=make_set(0, spec=make_spec(4), capacity=room),
        script=Script(memory=3 * 640 * MIB + MIB),
        plan=plan,
    )
    world.at(120, "the user scales in to 3", scale(3))
    return world


def upgrade_of_five(plan: PlanFunction) -> World:
    return World(scale_set=upgrading(make_set(5)), plan=plan)


def upgrade_of_twenty_by_fifths(plan: PlanFunction) -> World:
    return World(scale_set=upgrading(make_set(20)), plan=plan)


def bad_image_is_restored_and_stops(plan: PlanFunction) -> World:
    return World(scale_set=upgrading(make_set(5)), script=Script(health=never_healthy), plan=plan)


def bad_image_without_restore_stays(plan: PlanFunction) -> World:
    scale_set = upgrading(make_set(5), restores=False)
    return World(scale_set=scale_set, script=Script(health=never_healthy), plan=plan)


def image_that_does_not_boot(plan: PlanFunction) -> World:
    script = Script(boots=lambda name, version, generation: version != NEW)
    return World(scale_set=upgrading(make_set(5)), script=script, plan=plan)


def extension_fails_on_the_new_image(plan: PlanFunction) -> World:
    script = Script(extends=lambda name, version, generation: version != NEW)
    return World(scale_set=upgrading(make_set(5)), script=script, plan=plan)


def restore_fails_too(plan: PlanFunction) -> World:
    script = Script(boots=lambda name, version, generation: False)
    return World(scale_set=upgrading(make_set(2)), script=script, plan=plan)


def one_bad_instance_of_ten_is_tolerated(plan: PlanFunction) -> World:
    script = Script(
        health=lambda name, version, generation: None if (name, version) == ("web_8", NEW) else 4
    )
    return World(scale_set=upgrading(make_set(10)), script=script, plan=plan)


def unhealthy_set_is_refused(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(5), plan=plan)
    world.at(0, "web_1 falls ill", fall_ill("web_1"))
    world.at(0, "web_3 falls ill", fall_ill("web_3"))
    world.at(0, "upgrade to 1.1.0 is asked for", start_upgrade())
    return world


def set_falls_ill_during_an_upgrade(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(6)), plan=plan)
    world.at(20, "web_4 falls ill", fall_ill("web_4"))
    world.at(21, "web_5 falls ill", fall_ill("web_5"))
    return world


def cancel_in_the_middle(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(5)), plan=plan)
    world.at(40, "the user cancels", cancel)
    return world


def scale_out_and_in_during_an_upgrade(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(3)), plan=plan)
    world.at(10, "the user scales out to 5", scale(5))
    world.at(80, "the user scales in to 4", scale(4))
    return world


def scale_in_and_out_again(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(4), plan=plan)
    world.at(5, "the user scales in to 2", scale(2))
    world.at(6, "the user scales out to 4", scale(4))
    return world


def pause_between_batches(plan: PlanFunction) -> World:
    policy = make_policy(pause_time_between_batches=timedelta(minutes=2))
    spec = make_spec(2, upgrade_policy=policy)
    return World(scale_set=upgrading(make_set(2, spec=spec)), plan=plan)


def instance_dies_during_the_batch_of_another(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(5)), plan=plan)
    world.at(10, "web_3 goes off by itself", die("web_3"))
    return world


def member_dies_while_it_waits_for_health(plan: PlanFunction) -> World:
    script = Script(health=lambda name, version, generation: 60)
    world = World(scale_set=upgrading(make_set(3)), script=script, plan=plan)
    world.at(40, "web_0 goes off by itself", die("web_0"))
    return world


def unhealthy_instances_first(plan: PlanFunction) -> World:
    policy = make_policy(prioritize_unhealthy_instances=True)
    spec = make_spec(10, upgrade_policy=policy)
    world = World(scale_set=make_set(10, spec=spec), plan=plan)
    world.at(0, "web_6 falls ill", fall_ill("web_6"))
    world.at(0, "web_7 falls ill", fall_ill("web_7"))
    world.at(0, "upgrade to 1.1.0 is asked for", start_upgrade())
    world.at(20, "web_6 recovers", recover("web_6"))
    world.at(20, "web_7 recovers", recover("web_7"))
    return world


def some_are_on_the_target_or_stopped(plan: PlanFunction) -> World:
    instances = (
        make_instance(0, generations=(make_generation(version=NEW),)),
        make_instance(1, wanted=Wanted.STOPPED),
        make_instance(2),
        make_instance(3),
    )
    return World(scale_set=upgrading(make_set(4, instances=instances)), plan=plan)


def user_stops_and_restarts_during_an_upgrade(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(4)), plan=plan)
    world.at(10, "the user stops web_0", want("web_0", Wanted.STOPPED))
    world.at(20, "the user restarts web_2", restart("web_2"))
    world.at(90, "the user starts web_0", want("web_0", Wanted.RUNNING))
    return world


def set_is_deleted_during_an_upgrade(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(2)), plan=plan)
    world.at(10, "the user deletes the scale set", delete_set)
    return world


def controller_dies_in_the_swap(plan: PlanFunction) -> World:
    world = World(scale_set=upgrading(make_set(2)), plan=plan)
    for second in (1, 4, 6, 15, 33):
        world.at(second, "the controller is killed and started again", kill_controller)
    return world


def batch_boots_one_at_a_time(plan: PlanFunction) -> World:
    policy = make_policy(max_batch_instance_percent=50)
    spec = make_spec(6, upgrade_policy=policy)
    scale_set = make_set(6, spec=spec)
    capacity = replace(scale_set.capacity, boots_at_once=1)
    return World(scale_set=upgrading(replace(scale_set, capacity=capacity)), plan=plan)


STORIES: tuple[Story, ...] = (
    provisioning_two_ordered_extensions,
    provisioning_bound_by_memory_and_boots,
    upgrade_of_five,
    upgrade_of_twenty_by_fifths,
    bad_image_is_restored_and_stops,
    bad_image_without_restore_stays,
    image_that_does_not_boot,
    extension_fails_on_the_new_image,
    restore_fails_too,
    one_bad_instance_of_ten_is_tolerated,
    unhealthy_set_is_refused,
    set_falls_ill_during_an_upgrade,
    cancel_in_the_middle,
    scale_out_and_in_during_an_upgrade,
    scale_in_and_out_again,
    pause_between_batches,
    instance_dies_during_the_batch_of_another,
    member_dies_while_it_waits_for_health,
    unhealthy_instances_first,
    some_are_on_the_target_or_stopped,
    user_stops_and_restarts_during_an_upgrade,
    set_is_deleted_during_an_upgrade,
    controller_dies_in_the_swap,
    batch_boots_one_at_a_time,
    *REPAIR_STORIES,
)


def tell(story: Story, plan: PlanFunction = real_plan) -> str:
    """Run a story and write it down, with what is left at its end."""
    world = story(plan).run(turns=1500)
    lines = [*world.log, "", "at the end:"]
    upgrade = world.scale_set.upgrade
    if upgrade is not None:
        lines.append(f"  upgrade {upgrade.code}")
        if upgrade.error is not None:
            lines.append(f"    {upgrade.error.code}")
        lines += [f"    {name} {count}" for name, count in upgrade.counts.items() if count]
        lines += [
            f"    {m.instance} {m.state}{f': {m.message}' if m.message else ''}"
            for m in sorted(upgrade.members, key=lambda m: m.ordinal)
        ]
    lines.append(f"  new instances boot {world.scale_set.image_version}")
    lines += [
        f"  {i.name} {i.domain.power} on OS disk {i.domain.generation} "
        f"({i.current.image_version}), disks kept: "
        + ", ".join(str(g.number) for g in i.generations)
        for i in sorted(world.scale_set.instances, key=lambda i: i.ordinal)
    ]
    lines += [
        f"  repair {r.id} of {r.instance} ({r.action}): {r.outcome}"
        for r in world.scale_set.repairs
    ]
    return "\n".join(lines) + "\n"


__all__ = ["OLD", "STORIES", "Story", "tell"]
