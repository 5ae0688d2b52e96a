"""Which unhealthy instances are repaired now, and when repairing is given up."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from labctl.model.instance import Instance, Power, Wanted
from labctl.model.instance_policy import RepairAction
from labctl.model.plan import BeginRepair, Decision, EndRepair, Hold, Plan, ScaleSet, SuspendRepairs
from labctl.model.repair import Repair, RepairOutcome
from labctl.planner.health import find_failure, judge
from labctl.planner.situation import Situation

TRIES = 3  # repairs of one instance without becoming healthy in between; then all are suspended
_PERCENT_AT_ONCE = 5
_JUDGED = 10  # of so many latest repairs at most half may fail,
_ENOUGH = 5  # and so few are not judged


def plan_repairs(scale_set: ScaleSet, situations: Sequence[Situation], now: datetime) -> Plan:
    """What automatic repairs decide next; holds say why an unhealthy instance is left alone."""
    if any(s.is_counted and s.instance.domain.power is Power.UNKNOWN for s in situations):
        return Plan()  # nobody is unhealthy because libvirt is away
    present = {s.instance.ordinal: s for s in situations}
    open_repairs = [r for r in _sort(scale_set.repairs) if r.is_open]
    ended = [_find_end(scale_set, r, present.get(r.ordinal)) for r in open_repairs]
    if any(ended):
        return Plan(decisions=tuple(end for end in ended if end is not None))
    if not scale_set.spec.automatic_repairs_policy.enabled or scale_set.is_deleting:
        return Plan()
    unhealthy = [s for s in situations if _is_unhealthy_at_rest(s)]
    obstacle = _find_obstacle(scale_set)
    if obstacle is not None:
        return Plan(
            holds=tuple(_hold(s, f"{judge(s).reason}; not repaired: {obstacle}") for s in unhealthy)
        )
    failed = [
        (s.repair, s)
        for s in unhealthy
        if s.repair is not None
        and has_taken_effect(s.repair, s.instance)
        and now >= _find_grace_end(scale_set, s)
    ]
    if failed:
        return Plan(decisions=_try_again(scale_set, failed))
    return _begin_repairs(scale_set, situations, unhealthy, open_repairs, now)


def limit_repairs(total: int) -> int:
    """How many of `total` instances may be in repair at once."""
    # 5 %: of 60 three, of 39 one (1.95 would be more than the share), of fewer always one.
    return max(1, total * _PERCENT_AT_ONCE // 100)


def has_taken_effect(repair: Repair, instance: Instance) -> bool:
    """Has the instance been switched on since, or failed before it could be?"""
    current = instance.current
    moments = (current.started_at, current.failure.at if current.failure else None)
    return any(moment is not None and moment >= repair.began_at for moment in moments)


def _find_end(scale_set: ScaleSet, repair: Repair, situation: Situation | None) -> EndRepair | None:
    """Why this repair is over, unless it failed."""

    def end(outcome: RepairOutcome, reason: str) -> EndRepair:
        return EndRepair(repair=repair.id, instance=repair.instance, outcome=outcome, reason=reason)

    if scale_set.is_deleting:
        return end(RepairOutcome.CANCELLED, "the scale set is being deleted")
    if not scale_set.spec.automatic_repairs_policy.enabled:
        return end(RepairOutcome.CANCELLED, "automatic repairs were switched off")
    if situation is None:  # whoever shall come back was created before this is asked
        return end(RepairOutcome.CANCELLED, "deleted meanwhile")
    instance = situation.instance
    match instance.wanted:
        case Wanted.DELETED:
            is_old = repair.action is RepairAction.REPLACE and instance.created_at < repair.began_at
            return None if is_old else end(RepairOutcome.CANCELLED, "deleted meanwhile")
        case Wanted.STOPPED:
            return end(RepairOutcome.CANCELLED, "stopped by its user meanwhile")
        case Wanted.RUNNING:
            pass
        case _:
            assert_never(instance.wanted)
    if instance.is_protected:
        return end(RepairOutcome.CANCELLED, "protected meanwhile")
    if judge(situation).is_healthy and has_taken_effect(repair, instance):
        return end(RepairOutcome.HEALTHY, f"healthy after {repair.action.lower()}")
    return None


def _find_obstacle(scale_set: ScaleSet) -> str | None:
    """Why nothing is repaired at all now."""
    service, upgrade = scale_set.repair_service, scale_set.upgrade
    if service.is_suspended:
        return (
            f"automatic repairs are suspended ({service.suspended_reason}); to go on: "
            f"labctl repairs resume {scale_set.name}"
        )
    if upgrade is not None and not upgrade.code.is_final:
        return f"upgrade {upgrade.id} is running"
    return None


def _is_unhealthy_at_rest(situation: Situation) -> bool:
    """Is it unhealthy, and will nothing but a repair or a person change that?

    One that is off is switched on again anyway, and one that starts is not judged yet.
    """
    instance = situation.instance
    is_at_rest = (
        find_failure(situation) is not None
        or instance.is_settled
        or (situation.repair is not None and instance.domain.power is Power.PAUSED)
    )
    return situation.is_counted and is_at_rest and judge(situation).is_unhealthy


def _find_grace_end(scale_set: ScaleSet, situation: Situation) -> datetime:
    """The grace period runs anew from each change: created, switched on, ready, provisioned."""
    instance, current = situation.instance, situation.current
    moments = [
        instance.created_at,
        current.started_at,
        current.ready_at,
        current.failure.at if current.failure else None,
        *(run.finished_at for run in current.extensions),
    ]
    latest = max(moment for moment in moments if moment is not None)
    return latest + scale_set.spec.automatic_repairs_policy.grace_period


def _try_again(
    scale_set: ScaleSet, failed: Sequence[tuple[Repair, Situation]]
) -> tuple[Decision, ...]:
    """End what has failed. Either repair the same ones again in the same turn, or suspend.

    So a repair is open until its instance is healthy, and whatever heals it in between counts.
    """
    reason = _find_reason_to_suspend(scale_set, failed)
    decisions: list[Decision] = []
    for repair, situation in failed:
        verdict = judge(situation)
        decisions.append(
            EndRepair(
                repair=repair.id,
                instance=repair.instance,
                outcome=RepairOutcome.FAILED,
                reason=f"still unhealthy after {repair.action.lower()}: {verdict.reason}",
            )
        )
        if reason is None:
            decisions.append(_begin(scale_set, situation, count_tries(scale_set, repair) + 1))
    if reason is not None:
        decisions.append(SuspendRepairs(reason=reason))
    return tuple(decisions)


def count_tries(scale_set: ScaleSet, repair: Repair) -> int:
    """How many repairs of its instance in a row, this one included, have not helped."""
    earlier = [
        r
        for r in _sort(scale_set.repairs)
        if r.ordinal == repair.ordinal and r.id < repair.id and _counts(scale_set, r)
    ]
    tries = 1
    for each in reversed(earlier):
        if each.outcome is not RepairOutcome.FAILED:
            break
        tries += 1
    return tries


def _find_reason_to_suspend(
    scale_set: ScaleSet, failed: Sequence[tuple[Repair, Situation]]
) -> str | None:
    for repair, situation in failed:
        tries = count_tries(scale_set, repair)
        if tries >= TRIES:
            return (
                f"{repair.instance} was repaired {tries} times and is still unhealthy: "
                f"{judge(situation).reason}"
            )
    # Each instance failing once tells the same where many share one fault, say a database.
    judged = [
        r
        for r in sorted(scale_set.repairs, key=lambda r: (r.ended_at or r.began_at, r.id))
        if _counts(scale_set, r) and r.outcome in {RepairOutcome.HEALTHY, RepairOutcome.FAILED}
    ]
    outcomes = [r.outcome for r in judged] + [RepairOutcome.FAILED] * len(failed)
    latest = outcomes[-max(_JUDGED, len(failed)) :]
    bad = latest.count(RepairOutcome.FAILED)
    if len(latest) < _ENOUGH or bad * 2 <= len(latest):
        return None
    repair, situation = failed[0]
    return (
        f"{bad} of the last {len(latest)} repairs failed; latest {repair.instance}: "
        f"{judge(situation).reason}"
    )


def _counts(scale_set: ScaleSet, repair: Repair) -> bool:
    resumed_at = scale_set.repair_service.resumed_at
    return resumed_at is None or repair.began_at >= resumed_at


def _begin_repairs(
    scale_set: ScaleSet,
    situations: Sequence[Situation],
    unhealthy: Sequence[Situation],
    open_repairs: Sequence[Repair],
    now: datetime,
) -> Plan:
    """Begin as many as the share allows, by ordinal."""
    # One that is being replaced counts in the total, though nobody of its ordinal may be there.
    counted = {s.instance.ordinal for s in situations if s.is_counted}
    limit = limit_repairs(len(counted | {r.ordinal for r in open_repairs}))
    room = limit - len(open_repairs)
    policy = scale_set.spec.automatic_repairs_policy
    decisions: list[BeginRepair] = []
    holds: list[Hold] = []
    for situation in unhealthy:
        verdict, failure = judge(situation), find_failure(situation)
        until = _find_grace_end(scale_set, situation)
        left, whole = max((until - now).total_seconds(), 0), policy.grace_period.total_seconds()
        if situation.repair is not None:
            holds.append(
                _hold(
                    situation,
                    f"repair {situation.repair.id} ({situation.repair.action}) has not helped yet, "
                    f"{left:.0f} s of {whole:g} s left: {verdict.reason}",
                    until if now < until else None,
                )
            )
        elif situation.instance.is_protected:
            holds.append(_hold(situation, f"not repaired: protected; {verdict.reason}"))
        elif failure is not None:
            name = situation.instance.name
            holds.append(
                _hold(
                    situation,
                    f"failed at {failure.rung}: {failure.message}; automatic repairs leave alone "
                    f"what is not provisioned; to try again: labctl instance restart {name}",
                )
            )
        elif now < until:
            holds.append(
                _hold(
                    situation,
                    f"{policy.repair_action} after the grace period, "
                    f"{left:.0f} s of {whole:g} s left: {verdict.reason}",
                    until,
                )
            )
        elif len(decisions) >= room:
            holds.append(
                _hold(
                    situation,
                    f"waiting for its repair, at most {limit} of {len(counted)} at once: "
                    f"{verdict.reason}",
                )
            )
        else:
            decisions.append(_begin(scale_set, situation, 1))
    return Plan(decisions=tuple(decisions), holds=tuple(holds))


def _begin(scale_set: ScaleSet, situation: Situation, tries: int) -> BeginRepair:
    verdict = judge(situation)
    action = scale_set.spec.automatic_repairs_policy.repair_action
    return BeginRepair(
        instance=situation.instance.name,
        action=action,
        reason=f"{action}, try {tries} of {TRIES}; {verdict.state.lower()}: {verdict.reason}",
    )


def _hold(situation: Situation, reason: str, until: datetime | None = None) -> Hold:
    return Hold(subject=situation.instance.name, reason=reason, until=until)


def _sort(repairs: Sequence[Repair]) -> list[Repair]:
    return sorted(repairs, key=lambda r: r.id)
