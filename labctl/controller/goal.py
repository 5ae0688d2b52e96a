"""When a command may stop working: what it waits for, read off the facts."""

from collections.abc import Callable
from dataclasses import dataclass

from labctl.model.instance import Instance, Power, Wanted
from labctl.model.plan import Plan, ScaleSet
from labctl.model.upgrade import Upgrade
from labctl.planner import is_healthy


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the work for a command ended."""

    succeeded: bool
    message: str
    hint: str = ""


Goal = Callable[[ScaleSet | None, Plan], Outcome | None]  # None: not there yet


def converged(scale_set: ScaleSet | None, plan: Plan) -> Outcome | None:
    """Every instance is as wanted and healthy, or cannot get there without a person."""
    if scale_set is None:
        return Outcome(succeeded=True, message="deleted")
    if plan.decisions or plan.actions:
        return None
    if len(scale_set.instances) != scale_set.spec.capacity and not scale_set.is_deleting:
        return None
    broken = [instance for instance in scale_set.instances if has_given_up(instance)]
    waiting = [
        instance
        for instance in scale_set.instances
        if not has_given_up(instance) and not is_as_wanted(instance, scale_set)
    ]
    if waiting:
        return None
    if broken:
        first = broken[0]
        failure = first.current.failure
        return Outcome(
            succeeded=False,
            message=f"{len(broken)} of {len(scale_set.instances)} instances failed; {first.name}: "
            f"{failure.message if failure else first.health.detail}",
            hint=f"run: labctl why {first.name}",
        )
    running = sum(instance.wanted is Wanted.RUNNING for instance in scale_set.instances)
    return Outcome(succeeded=True, message=f"{running} of {scale_set.spec.capacity} healthy")


def deleted(scale_set: ScaleSet | None, plan: Plan) -> Outcome | None:  # noqa: ARG001 - a Goal
    """The scale set is gone."""
    return Outcome(succeeded=True, message="deleted") if scale_set is None else None


def upgrade_ended(upgrade_id: int, load: Callable[[int], Upgrade]) -> Goal:
    """The upgrade has a final code."""

    def goal(scale_set: ScaleSet | None, plan: Plan) -> Outcome | None:
        if scale_set is not None and scale_set.upgrade is not None:
            return None
        if plan.actions:  # the last old disks are still being thrown away
            return None
        upgrade = load(upgrade_id)
        if not upgrade.code.is_final:
            return None
        failed = upgrade.counts["failedInstanceCount"]
        message = upgrade.error.message if upgrade.error else f"upgrade {upgrade.code.value}"
        return Outcome(
            succeeded=upgrade.error is None and failed == 0,
            message=message,
            hint=f"run: labctl upgrade show {upgrade.id}" if failed or upgrade.error else "",
        )

    return goal


def has_given_up(instance: Instance) -> bool:
    """Does this instance need a person?"""
    return (
        instance.current.failure is not None
        and instance.domain.generation in {None, instance.generation}
        and instance.wanted is Wanted.RUNNING
    )


def is_as_wanted(instance: Instance, scale_set: ScaleSet) -> bool:
    """Is there nothing to wait for?"""
    if instance.wanted is Wanted.STOPPED:
        return instance.domain.power is Power.STOPPED
    if instance.wanted is Wanted.DELETED:
        return False
    return is_healthy(instance, scale_set).is_healthy
