"""Whole runs as stories; `test_stories.py` compares each with its golden file."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from labctl.model.instance import Wanted
from labctl.model.machine import MachineSize
from labctl.model.plan import HostCapacity
from labctl.model.setup import CustomData, Extension
from labctl.model.upgrade_policy import UpgradeMode
from tests.planner.control_stories import CONTROL_STORIES
from tests.planner.happenings import (
    apply_model,
    cancel,
    delete_set,
    die,
    fall_ill,
    kill_controller,
    recover,
    restart,
    scale,
    start_upgrade,
    update_instances,
    want,
)
from tests.planner.hook_stories import HOOK_STORIES
from tests.planner.placement_stories import PLACEMENT_STORIES
from tests.planner.repair_stories import REPAIR_STORIES
from tests.planner.surge_stories import SURGE_STORIES
from tests.planner.world import (
    MIB,
    NEW,
    OLD,
    RICH,
    PlanFunction,
    Script,
    World,
    make_generation,
    make_instance,
    make_metrics,
    make_policy,
    make_set,
    make_spec,
    real_plan,
    telling,
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


def credential_is_refused_and_the_first_batch_left_failed(plan: PlanFunction) -> World:
    # Half of each batch is lost to it, and all of it may fail: one refusal is enough all the same.
    policy = make_policy(max_batch_instance_percent=34, max_unhealthy_upgraded_instance_percent=100)
    script = Script(refuses=lambda name, version, _: (name, version) == ("web_1", NEW))
    scale_set = upgrading(make_set(6, spec=make_spec(6, upgrade_policy=policy)))
    return World(scale_set=scale_set, script=script, plan=plan)


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


def new_custom_data_rolls_by_itself(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(3), plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, custom_data=CustomData(inline="new"))
    world.at(0, "the user applies new custom data in mode Rolling", changed)
    return world


def larger_size_rolls_by_restarts(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(2), plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, size=MachineSize(vcpus=2))
    world.at(0, "the user applies a larger size in mode Rolling", changed)
    return world


def bad_script_stops_and_a_mended_one_goes_on(plan: PlanFunction) -> World:
    """Azure's 2.3: after a fault a later change of the model starts the rollout again."""
    policy = make_policy(max_unhealthy_instance_percent=50)
    scale_set = make_set(3, spec=make_spec(3, upgrade_policy=policy))
    world = World(scale_set=scale_set, plan=plan)
    world.script.extends = lambda name, version, generation: (
        world.scale_set.models[world.find(name).current.model_revision].extensions[0].script
        != "bad"
    )
    for second, script in ((0, "bad"), (60, "good")):
        changed = apply_model(
            UpgradeMode.ROLLING, extensions=(Extension(name="app", script=script),)
        )
        world.at(second, f"the user applies a {script} script in mode Rolling", changed)
    return world


def same_spec_goes_on_after_a_cancel(plan: PlanFunction) -> World:
    """Azure's 2.3: an empty update starts a cancelled rollout again."""
    world = World(scale_set=make_set(3), plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, custom_data=CustomData(inline="new"))
    world.at(0, "the user applies new custom data in mode Rolling", changed)
    world.at(10, "the user cancels", cancel)
    world.at(120, "the user applies the same spec again", apply_model(UpgradeMode.ROLLING))
    return world


def newer_model_overtakes_a_rolling_one(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(3), plan=plan)
    for second, text in ((0, "second"), (40, "third")):
        changed = apply_model(UpgradeMode.ROLLING, custom_data=CustomData(inline=text))
        world.at(second, f"the user applies the {text} custom data in mode Rolling", changed)
    return world


def automatic_mode_changes_all_within_the_boots_of_the_host(plan: PlanFunction) -> World:
    scale_set = make_set(4)
    capacity = replace(scale_set.capacity, boots_at_once=2)
    world = World(scale_set=replace(scale_set, capacity=capacity), plan=plan)
    changed = apply_model(UpgradeMode.AUTOMATIC, custom_data=CustomData(inline="new"))
    world.at(0, "the user applies new custom data in mode Automatic", changed)
    return world


def manual_instances_are_updated_by_name(plan: PlanFunction) -> World:
    world = World(scale_set=make_set(3), plan=plan)
    changed = apply_model(
        UpgradeMode.MANUAL,
        size=MachineSize(vcpus=2),
        extensions=(Extension(name="app", script="new"),),
    )
    world.at(0, "the user applies a larger size and a new script in mode Manual", changed)
    world.at(30, "the user updates web_1 and web_2", update_instances("web_1", "web_2"))
    return world


def phases_by_custom_metrics(plan: PlanFunction) -> World:
    """web_4 and web_2 first, then web_1, then who tells no number; web_3 is left alone."""
    wishes = {
        "web_1": make_metrics(1),
        "web_2": make_metrics(0),
        "web_3": make_metrics(0, skips=True),
        "web_4": make_metrics(-1),
    }
    scale_set = make_set(7, spec=make_spec(7, health=RICH))
    # Told later, for nothing: metrics are read once, at the start.
    script = Script(metrics=lambda name: make_metrics(5, skips=True))
    return World(scale_set=upgrading(telling(scale_set, wishes)), script=script, plan=plan)


def phase_waits_for_who_is_initializing(plan: PlanFunction) -> World:
    wishes = {"web_0": make_metrics(0), "web_1": make_metrics(0), "web_2": make_metrics(1)}
    scale_set = telling(make_set(3, spec=make_spec(3, health=RICH)), wishes)
    script = Script(health=lambda name, version, generation: 90 if version == OLD else 4)
    world = World(scale_set=upgrading(scale_set), script=script, plan=plan)
    world.at(1, "the user restarts web_1", restart("web_1"))
    return world


STORIES: tuple[Story, ...] = (
    provisioning_two_ordered_extensions,
    provisioning_bound_by_memory_and_boots,
    upgrade_of_five,
    upgrade_of_twenty_by_fifths,
    bad_image_is_restored_and_stops,
    bad_image_without_restore_stays,
    image_that_does_not_boot,
    extension_fails_on_the_new_image,
    credential_is_refused_and_the_first_batch_left_failed,
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
    new_custom_data_rolls_by_itself,
    larger_size_rolls_by_restarts,
    bad_script_stops_and_a_mended_one_goes_on,
    same_spec_goes_on_after_a_cancel,
    newer_model_overtakes_a_rolling_one,
    automatic_mode_changes_all_within_the_boots_of_the_host,
    manual_instances_are_updated_by_name,
    phases_by_custom_metrics,
    phase_waits_for_who_is_initializing,
    *REPAIR_STORIES,
    *HOOK_STORIES,
    *CONTROL_STORIES,
    *PLACEMENT_STORIES,
    *SURGE_STORIES,
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
