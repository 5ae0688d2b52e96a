"""Stories of upgrades that are held back; part of `stories.py`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from labctl.model.control import ApprovalDefault, ApprovalPolicy, ApprovalScope, CanaryPolicy
from labctl.model.plan import ScaleSet, Setback
from labctl.model.setup import CustomData
from labctl.model.upgrade_policy import RollingUpgradePolicy, UpgradeMode, UpgradePolicy
from labctl.model.window import UTC_CLOCK, MaintenanceWindow, Shift, ZoneClock
from tests.planner.happenings import (
    apply_model,
    approve,
    cancel,
    fall_ill,
    pause,
    recover,
    reject,
    restart,
    resume,
)
from tests.planner.world import (
    T0,
    PlanFunction,
    World,
    make_set,
    make_spec,
    make_upgrade,
    upgrading,
)


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


BERLIN = ZoneClock(
    shifts=(
        Shift(since=datetime(2025, 10, 26, 1, tzinfo=UTC), offset=timedelta(hours=1)),
        Shift(since=datetime(2026, 3, 29, 1, tzinfo=UTC), offset=timedelta(hours=2)),
        Shift(since=datetime(2026, 10, 25, 1, tzinfo=UTC), offset=timedelta(hours=1)),
    )
)


def in_windows(count: int, *windows: MaintenanceWindow, **changes: Any) -> ScaleSet:
    """A scale set with maintenance windows, in Berlin or in UTC."""
    policy = UpgradePolicy(maintenance_windows=windows, **changes)
    spec = make_spec(count, upgrade_policy=policy)
    return make_set(count, spec=spec, clocks={"Europe/Berlin": BERLIN, "UTC": UTC_CLOCK})


def batches_wait_for_a_maintenance_window(plan: PlanFunction) -> World:
    """It opens at 12:30 for half an hour, in which 10 minutes lie between batches."""
    window = MaintenanceWindow(start="12:30", duration=timedelta(minutes=30))
    policy = RollingUpgradePolicy(pause_time_between_batches=timedelta(minutes=10))
    scale_set = in_windows(4, window, rolling_upgrade_policy=policy)
    return World(scale_set=upgrading(scale_set), plan=plan)


def windows_over_a_change_of_the_clocks(plan: PlanFunction) -> World:
    """29 March 2026: the window of 02:30 begins when the clocks jump, at 03:00 summer time."""
    window = MaintenanceWindow(
        start="02:30", duration=timedelta(minutes=30), time_zone="Europe/Berlin"
    )
    policy = RollingUpgradePolicy(pause_time_between_batches=timedelta(hours=2))
    scale_set = in_windows(3, window, rolling_upgrade_policy=policy)
    saturday = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)
    upgrade = make_upgrade(scale_set, started_at=saturday)
    return World(scale_set=replace(scale_set, upgrade=upgrade), now=saturday, plan=plan)


def model_waits_for_a_maintenance_window(plan: PlanFunction) -> World:
    window = MaintenanceWindow(start="12:30", duration=timedelta(minutes=30))
    world = World(scale_set=in_windows(2, window), plan=plan)
    changed = apply_model(UpgradeMode.ROLLING, custom_data=CustomData(inline="new"))
    world.at(0, "the user applies new custom data in mode Rolling", changed)
    return world


def approving(count: int, **changes: Any) -> ScaleSet:
    """An upgrade that needs approvals."""
    policy = UpgradePolicy(approval=ApprovalPolicy(**changes))
    return upgrading(make_set(count, spec=make_spec(count, upgrade_policy=policy)))


def each_batch_is_approved_and_one_rejected(plan: PlanFunction) -> World:
    world = World(scale_set=approving(3, before=ApprovalScope.EACH_BATCH), plan=plan)
    world.at(300, "the user approves", approve)
    world.at(900, "the user rejects", reject)
    return world


def first_batch_is_approved_for_all(plan: PlanFunction) -> World:
    world = World(scale_set=approving(2), plan=plan)
    world.at(300, "the user approves", approve)
    return world


def nobody_approves(plan: PlanFunction) -> World:
    return World(scale_set=approving(2, timeout=timedelta(minutes=10)), plan=plan)


def silence_is_consent(plan: PlanFunction) -> World:
    scale_set = approving(2, timeout=timedelta(minutes=10), on_timeout=ApprovalDefault.APPROVE)
    return World(scale_set=scale_set, plan=plan)


def baking(count: int, plan: PlanFunction, **changes: Any) -> World:
    """An upgrade whose first batch is a canary of one, for ten minutes; half may fail."""
    limits = RollingUpgradePolicy(max_batch_instance_percent=50, **changes)
    policy = UpgradePolicy(canary=CanaryPolicy(), rolling_upgrade_policy=limits)
    scale_set = make_set(count, spec=make_spec(count, upgrade_policy=policy))
    return World(scale_set=upgrading(scale_set), plan=plan)


def canary_bakes_before_the_others(plan: PlanFunction) -> World:
    return baking(7, plan)


def canary_falls_ill_while_it_bakes(plan: PlanFunction) -> World:
    world = baking(7, plan)
    world.at(300, "web_0 falls ill", fall_ill("web_0"))
    return world


def tolerated_canary_bakes_anew(plan: PlanFunction) -> World:
    """The limits would let it go on; the canary has to prove itself from its recovery on."""
    world = baking(6, plan, max_unhealthy_upgraded_instance_percent=100)
    world.at(300, "web_0 falls ill", fall_ill("web_0"))
    world.at(400, "the user restarts web_0, which helps", restart("web_0"))
    world.at(400, "web_0 recovers", recover("web_0"))
    return world


def tolerated_canary_stays_ill(plan: PlanFunction) -> World:
    """The limits would let it go on, the bake time would never be over: its time for health is."""
    world = baking(6, plan, max_unhealthy_upgraded_instance_percent=100)
    world.at(300, "web_0 falls ill", fall_ill("web_0"))
    return world


def host_fault_of_one_holds_up_nobody_else(plan: PlanFunction) -> World:
    """One boot at a time, and web_0 cannot be switched on for a minute: its turn goes on."""
    scale_set = make_set(0, spec=make_spec(3))
    fault = Setback(step="Start", reason="its disk is in use", until=T0 + timedelta(minutes=1))
    held = replace(
        scale_set,
        capacity=replace(scale_set.capacity, boots_at_once=1),
        setbacks={"web_0": fault},
    )
    return World(scale_set=held, plan=plan)


CONTROL_STORIES: tuple[Callable[[PlanFunction], World], ...] = (
    user_pauses_and_resumes,
    paused_upgrade_is_cancelled,
    upgraded_instance_falls_ill_in_a_pause,
    batches_wait_for_a_maintenance_window,
    windows_over_a_change_of_the_clocks,
    model_waits_for_a_maintenance_window,
    each_batch_is_approved_and_one_rejected,
    first_batch_is_approved_for_all,
    nobody_approves,
    silence_is_consent,
    canary_bakes_before_the_others,
    canary_falls_ill_while_it_bakes,
    tolerated_canary_bakes_anew,
    tolerated_canary_stays_ill,
    host_fault_of_one_holds_up_nobody_else,
)
