"""What people and accidents do to a world, for `World.at`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labctl.model.instance import Instance, Power, Rung, Wanted
from labctl.model.instance_policy import RepairAction
from labctl.model.plan import RenewInstances, Rollout, Start
from labctl.model.repair import RepairService
from labctl.model.upgrade import UpgradePurpose
from labctl.model.upgrade_policy import UpgradeMode
from labctl.planner import find_outdated
from labctl.planner.foresight import record
from tests.planner.world import World, make_upgrade


def start_upgrade(**changes: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        upgrade = make_upgrade(world.scale_set, started_at=world.now, **changes)
        world.scale_set = replace(world.scale_set, upgrade=upgrade)

    return change


def scale(capacity: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        spec = world.scale_set.spec.model_copy(update={"capacity": capacity})
        world.scale_set = replace(world.scale_set, spec=spec)

    return change


def cancel(world: World) -> None:
    if world.scale_set.upgrade is not None:
        upgrade = replace(world.scale_set.upgrade, cancel_asked_at=world.now)
        world.scale_set = replace(world.scale_set, upgrade=upgrade)


def pause(world: World) -> None:
    """`labctl upgrade pause`."""
    _change_upgrade(world, paused_at=world.now)


def resume(world: World) -> None:
    """`labctl upgrade resume`."""
    _change_upgrade(world, paused_at=None, approval_asked_at=None)


def approve(world: World) -> None:
    """`labctl upgrade approve`."""
    upgrade = world.scale_set.upgrade
    if upgrade is not None:
        _change_upgrade(world, approved_batch=upgrade.batches + 1)


def reject(world: World) -> None:
    """`labctl upgrade reject`."""
    _change_upgrade(world, cancel_asked_at=world.now, cancel_reason="batch 2 was rejected: no")


def _change_upgrade(world: World, **changes: Any) -> None:
    if world.scale_set.upgrade is not None:
        upgrade = replace(world.scale_set.upgrade, **changes)
        world.scale_set = replace(world.scale_set, upgrade=upgrade)


def want(name: str, wanted: Wanted) -> Callable[[World], None]:
    return lambda world: world._change(name, lambda i: replace(i, wanted=wanted))


def restart(name: str) -> Callable[[World], None]:
    return lambda world: world._change(name, lambda i: replace(i, restart_asked_at=world.now))


def apply_model(mode: UpgradeMode, **changes: Any) -> Callable[[World], None]:
    """`labctl apply` with another spec; without changes it is the same one again."""

    def change(world: World) -> None:
        scale_set = world.scale_set
        policy = scale_set.spec.upgrade_policy.model_copy(update={"mode": mode})
        spec = scale_set.spec.model_copy(update={"upgrade_policy": policy, **changes})
        revision = scale_set.model_revision + bool(changes)
        changed = replace(
            scale_set,
            spec=spec,
            model_revision=revision,
            models=scale_set.models | {revision: spec},
        )
        rollout = Rollout(asked_at=world.now)
        is_wished = mode is not UpgradeMode.MANUAL and find_outdated(changed, rollout)
        running = changed.upgrade
        if is_wished and running is not None and running.purpose is UpgradePurpose.MODEL:
            running = replace(running, cancel_asked_at=running.cancel_asked_at or world.now)
        world.scale_set = replace(changed, upgrade=running, rollout=rollout if is_wished else None)

    return change


def update_instances(*names: str) -> Callable[[World], None]:
    """`labctl update-instances`."""

    def change(world: World) -> None:
        scale_set = world.scale_set
        decision = RenewInstances(
            instances=names,
            target_version=scale_set.image_version,
            target_digest=scale_set.image_digest,
            model_revision=scale_set.model_revision,
            reason="its user asked for it",
        )
        world.scale_set = record(scale_set, decision, world.now)

    return change


def delete_set(world: World) -> None:
    world.scale_set = replace(world.scale_set, is_deleting=True)


def fall_ill(name: str) -> Callable[[World], None]:
    return lambda world: world.sick.__setitem__(name, world.now)


def recover(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.sick.pop(name, None)

    return change


def die(name: str) -> Callable[[World], None]:
    """The guest goes off by itself; as the observer does, a moving member is marked as failed."""

    def change(world: World) -> None:
        if name not in {i.name for i in world.scale_set.instances}:
            return
        instance = world.find(name)
        if instance.domain.power is not Power.RUNNING:
            return
        world._change(
            name,
            lambda i: replace(i, domain=replace(i.domain, power=Power.STOPPED, reason="crashed")),
        )
        members = world.scale_set.upgrade.members if world.scale_set.upgrade else ()
        moving = any(m.carrier == name and m.state.is_moving for m in members)
        is_on_it = instance.domain.generation == instance.generation
        if moving and is_on_it and instance.current.started_at is not None:
            world._fail(name, Rung.POWER_ON, "went off by itself (crashed)")

    return change


def kill_controller(world: World) -> None:
    """What was under way is forgotten; power-ons have happened, but were not written down."""
    for _, action in world.jobs.values():
        if isinstance(action, Start) and action.instance in {
            i.name for i in world.scale_set.instances
        }:
            world._change(
                action.instance,
                lambda i: replace(i, domain=replace(i.domain, power=Power.RUNNING)),
            )
    world.jobs.clear()


def fall_ill_until(name: str, cure: RepairAction) -> Callable[[World], None]:
    """Ill until it is restarted, reimaged or replaced; what does more helps, too."""

    def change(world: World) -> None:
        if name not in {i.name for i in world.scale_set.instances}:
            return
        ill_at, number = world.now, world.find(name).generation

        def is_cured(instance: Instance) -> bool:
            if instance.created_at > ill_at:
                return True
            if cure is RepairAction.REPLACE:
                return False
            started_at = instance.current.started_at
            is_restarted = started_at is not None and started_at > ill_at
            return is_restarted and (cure is RepairAction.RESTART or instance.generation > number)

        world.sick[name] = ill_at
        world.cures[name] = is_cured

    return change


def protect(name: str, *, actions: bool) -> Callable[[World], None]:
    return lambda world: world._change(
        name,
        lambda i: replace(i, protect_from_scale_in=True, protect_from_scale_set_actions=actions),
    )


def resume_repairs(world: World) -> None:
    world.scale_set = replace(world.scale_set, repair_service=RepairService(resumed_at=world.now))


def suspend_repairs(world: World) -> None:
    service = replace(
        world.scale_set.repair_service,  # keeps since when tries count, as the store does
        suspended_at=world.now,
        suspended_reason="asked for by a person",
    )
    world.scale_set = replace(world.scale_set, repair_service=service)
