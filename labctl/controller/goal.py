"""When a command may stop working: what it waits for, read off the facts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from labctl.model.instance import Power, Wanted
from labctl.model.plan import Plan, ScaleSet
from labctl.model.upgrade import Upgrade, UpgradeCode, UpgradePurpose
from labctl.planner import find_change
from labctl.planner.health import find_failure, is_restart_due, judge
from labctl.planner.situation import Situation, survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the work for a command ended."""

    succeeded: bool
    message: str
    hint: str = ""


# (the scale set or None once it is gone, the plan, now) -> None: not there yet
Goal = Callable[[ScaleSet | None, Plan, datetime], Outcome | None]


def converged(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:
    """Every instance is as wanted and healthy, or cannot get there without a person."""
    if scale_set is None:
        return Outcome(succeeded=True, message="deleted")
    if plan.decisions or plan.actions or scale_set.is_deleting:
        return None
    return _judge(scale_set, now, survey(scale_set))


def _judge(scale_set: ScaleSet, now: datetime, situations: Sequence[Situation]) -> Outcome | None:
    broken: list[tuple[str, str]] = []
    for situation in situations:
        reason = find_reason_to_give_up(situation, scale_set, now)
        if reason is not None:
            broken.append((situation.instance.name, reason))
        elif not is_as_wanted(situation):
            return None
    if broken:
        name, reason = broken[0]
        return Outcome(
            succeeded=False,
            message=f"{len(broken)} of {len(situations)} instances failed; {name}: {reason}",
            hint=f"run: labctl why {name}",
        )
    healthy = sum(situation.instance.wanted is Wanted.RUNNING for situation in situations)
    stopped = len(situations) - healthy
    message = f"{healthy} healthy" + (f", {stopped} stopped" if stopped else "")
    return Outcome(succeeded=True, message=message)


def instances_as_wanted(names: frozenset[str]) -> Goal:
    """These instances are as their user wants them; the others do not matter."""

    def goal(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:
        if scale_set is None:
            return Outcome(succeeded=False, message="the scale set was deleted meanwhile")
        gone = names - {instance.name for instance in scale_set.instances}
        if gone:
            message = f"{', '.join(sorted(gone))} deleted meanwhile"
            return Outcome(succeeded=False, message=message)
        if plan.decisions or any(action.instance in names for action in plan.actions):
            return None
        repaired = {r.instance for r in scale_set.repairs if r.is_open}
        if any(action.instance in repaired for action in plan.actions):
            return None  # nobody else may come to switch it on again
        return _judge(scale_set, now, [s for s in survey(scale_set) if s.instance.name in names])

    return goal


def deleted(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:  # noqa: ARG001
    """The scale set is gone; another of the same name may have come since."""
    is_gone = scale_set is None or not scale_set.is_deleting
    return Outcome(succeeded=True, message="deleted") if is_gone else None


def model_in_force(find_newest: Callable[[], Upgrade | None], *, after: int) -> Goal:
    """As `converged`, once the model is rolled out by an upgrade with an id above `after`."""

    def goal(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:
        if scale_set is not None:
            running = scale_set.upgrade
            is_rolling = running is not None and running.purpose is UpgradePurpose.MODEL
            if scale_set.rollout is not None or is_rolling:
                return None
        newest = find_newest()
        ended = (
            newest
            if newest is not None and newest.id > after and newest.purpose is UpgradePurpose.MODEL
            else None
        )
        if ended is not None and ended.code is not UpgradeCode.COMPLETED:
            return replace(
                _describe_end(ended),
                succeeded=False,
                hint=f"run: labctl upgrade show {ended.id}; unhealthy instances get the model by "
                f"labctl update-instances {ended.scale_set} INSTANCE, the others by the next apply",
            )
        return converged(scale_set, plan, now)

    return goal


def model_applied(
    find_newest: Callable[[], Upgrade | None], *, after: int, since: datetime, revision: int | None
) -> Goal:
    """What a change of the model asks for is there; instances that it does not concern may ail.

    That is: as many instances as the capacity is, those made after `since` healthy, and, where
    `revision` is a new model, all that have it; an upgrade that brings it (id above `after`) has
    ended. In mode Manual nobody waits for the others.
    """

    def goal(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:
        if scale_set is None or scale_set.is_deleting:
            return Outcome(succeeded=False, message="the scale set was deleted meanwhile")
        running = scale_set.upgrade
        is_rolling = running is not None and running.purpose is UpgradePurpose.MODEL
        if scale_set.rollout is not None or is_rolling:
            return None
        newest = find_newest()
        if (
            newest is not None
            and newest.id > after
            and newest.purpose is UpgradePurpose.MODEL
            and newest.code.is_final
            and newest.code is not UpgradeCode.COMPLETED
        ):
            return replace(_describe_end(newest), succeeded=False)
        if plan.decisions or find_change(scale_set) is not None:
            return None
        concerned = [
            situation
            for situation in survey(scale_set)
            if situation.instance.created_at >= since
            or (revision is not None and situation.current.model_revision >= revision)
        ]
        names = {situation.instance.name for situation in concerned}
        if any(action.instance in names for action in plan.actions):
            return None
        return _judge(scale_set, now, concerned)

    return goal


def upgrade_ended(upgrade_id: int, load: Callable[[int], Upgrade]) -> Goal:
    """The upgrade has a final code and has left nothing to tidy up."""

    def goal(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> Outcome | None:  # noqa: ARG001
        if scale_set is not None and (scale_set.upgrade is not None or plan.actions):
            return None
        return _describe_end(load(upgrade_id))

    return goal


def _describe_end(upgrade: Upgrade) -> Outcome:
    counts = upgrade.counts
    failed = counts["failedInstanceCount"]
    message = (
        f"upgrade {upgrade.id} {upgrade.code.value}: "
        f"{counts['successfulInstanceCount']} upgraded, {failed} failed"
    )
    if upgrade.error is not None:
        message += f"; {upgrade.error.message}"
    elif upgrade.code is UpgradeCode.CANCELLED and upgrade.end_reason:
        message += f"; {upgrade.end_reason}"
    return Outcome(
        succeeded=upgrade.error is None and failed == 0,
        message=message,
        hint=f"run: labctl upgrade show {upgrade.id}" if failed or upgrade.error else "",
    )


def find_reason_to_give_up(situation: Situation, scale_set: ScaleSet, now: datetime) -> str | None:
    """Why this instance needs a person; None when waiting may still help."""
    refused = situation.instance.hook_failure
    if refused is not None and situation.instance.wanted is not Wanted.STOPPED:
        return f"{refused.kind}: {refused.message}; it is tried again now and then"
    if situation.instance.wanted is not Wanted.RUNNING:
        return None
    if situation.repair is not None and not scale_set.repair_service.is_suspended:
        return None  # it may still help; repeated failure suspends all repairs, and ends this
    failure = find_failure(situation)
    if failure is not None:
        return f"{failure.rung.value}: {failure.message}"
    domain = situation.instance.domain
    if domain.power is Power.PAUSED:
        return (
            f"paused by the hypervisor ({domain.reason}); look for a full disk on the host, "
            f"then: labctl instance restart {situation.instance.name}"
        )
    if not situation.instance.is_settled or situation.current.ready_at is None:
        return None
    # All that labctl does for it is done; from here on only the application decides.
    moments = [run.finished_at for run in situation.current.extensions if run.finished_at]
    settled_at = max([situation.current.ready_at, *moments])
    verdict = judge(situation)
    patience = scale_set.spec.upgrade_policy.health_timeout
    if not verdict.is_healthy and now > settled_at + patience and verdict.is_unhealthy:
        return f"not healthy within {patience.total_seconds():g} s: {verdict.reason}"
    return None


def is_as_wanted(situation: Situation) -> bool:
    """Is there nothing to wait for?"""
    instance = situation.instance
    if instance.wanted is Wanted.STOPPED:
        return instance.domain.power is Power.STOPPED
    if instance.wanted is Wanted.DELETED:
        return False
    # Its stop may be put off, while it is as healthy as before.
    return not is_restart_due(situation) and judge(situation).is_healthy
