"""Why an instance is where it is, for `labctl why`."""

from datetime import datetime

from labctl.model.instance import Instance, Wanted
from labctl.model.placement import is_placed, place
from labctl.model.plan import (
    AskApproval,
    BeginBatch,
    BeginRollback,
    CreateInstance,
    Decision,
    EndBatch,
    EndUpgrade,
    Plan,
    RenewInstances,
    ScaleSet,
    StartUpgrade,
    SuspendRepairs,
)
from labctl.model.upgrade import Upgrade
from labctl.planner.health import judge
from labctl.planner.plan import plan
from labctl.planner.situation import Situation, survey
from labctl.planner.upgrade import plan_upgrade


def explain(scale_set: ScaleSet, instance: Instance, now: datetime) -> tuple[str, ...]:
    """One sentence for each thing that bears on it, ending with what happens next and why."""
    situation = next(s for s in survey(scale_set) if s.instance.name == instance.name)
    verdict = judge(situation)
    return (
        f"wanted: {instance.wanted} on OS disk {instance.generation} "
        f"(image {situation.current.image_version})",
        f"found: {_describe_domain(situation)}",
        f"health: {verdict.state}: {verdict.reason}",
        *_describe_member(scale_set.upgrade, situation),
        *_describe_place(scale_set, instance),
        *_describe_protection(instance),
        *_describe_repair(situation),
        *_describe_service(instance),
        f"next: {_find_next(scale_set, instance.name, now)}",
    )


def find_upgrade_steps(scale_set: ScaleSet, now: datetime) -> Plan:
    """The part of the plan that the running upgrade waits for; empty when it decides at once."""
    upgrade = scale_set.upgrade
    answer = plan(scale_set, now)
    if upgrade is None or answer.decisions:
        return Plan()
    moving = {name for m in upgrade.members if m.state.is_moving for name in m.pair}
    # Who was replaced is still on its way out: the next batch waits for that.
    moving |= {i.name for i in scale_set.instances if i.wanted is Wanted.DELETED}
    own = plan_upgrade(scale_set, survey(scale_set), now).holds
    return Plan(
        actions=tuple(a for a in answer.actions if a.instance in moving),
        holds=tuple(h for h in answer.holds if h in own or h.subject in moving),
    )


def _describe_domain(situation: Situation) -> str:
    domain = situation.instance.domain
    if domain.generation is None:
        return f"{domain.power}, no domain is defined"
    reason = f" ({domain.reason})" if domain.reason else ""
    stale = "; its definition is older than its model" if domain.is_stale else ""
    return f"{domain.power}{reason} on OS disk {domain.generation}{stale}"


def _describe_member(upgrade: Upgrade | None, situation: Situation) -> tuple[str, ...]:
    member = situation.member
    if upgrade is None or member is None:
        return ()
    batch = f" in batch {member.batch}" if member.batch else ""
    message = f": {member.message}" if member.message else ""
    paused = ", paused by its user" if upgrade.paused_at is not None else ""
    pair = ""
    if member.replaced_by == situation.instance.name:
        pair = f", it comes for {member.instance}"
    elif member.replaced_by is not None:
        pair = f", {member.replaced_by} comes for it"
    return (
        f"upgrade {upgrade.id} to {upgrade.target} ({upgrade.code}{paused}): "
        f"{member.state}{batch}{pair}{message}",
    )


def _describe_place(scale_set: ScaleSet, instance: Instance) -> tuple[str, ...]:
    if not is_placed(scale_set.spec):
        return ()
    return (f"placed: {place(scale_set.spec, instance.ordinal).text}",)


def _describe_protection(instance: Instance) -> tuple[str, ...]:
    if instance.protect_from_scale_set_actions:
        return ("protected: from scale-in and from scale set actions",)
    return ("protected: from scale-in",) if instance.protect_from_scale_in else ()


def _describe_repair(situation: Situation) -> tuple[str, ...]:
    repair = situation.repair
    return () if repair is None else (f"repair {repair.id} ({repair.action}): {repair.reason}",)


def _describe_service(instance: Instance) -> tuple[str, ...]:
    since, failure = instance.out_of_service_since, instance.hook_failure
    lines = [] if since is None else [f"out of service since {since:%Y-%m-%d %H:%M:%S} UTC"]
    if failure is not None:
        lines.append(f"{failure.kind} failed ({failure.tries} in a row): {failure.message}")
    return tuple(lines)


def _find_next(scale_set: ScaleSet, name: str, now: datetime) -> str:
    answer = plan(scale_set, now)
    for decision in answer.decisions:
        if name in _find_named(decision):
            return f"{type(decision).__name__}: {decision.reason}"
    for action in answer.actions:
        if action.instance == name:
            return f"{type(action).__name__}: {action.reason}"
    for hold in answer.holds:
        if hold.subject == name:
            return f"nothing yet: {hold.reason}"
    for hold in answer.holds:
        if hold.subject == scale_set.name:
            return f"nothing; the scale set: {hold.reason}"
    upgrade = scale_set.upgrade
    for member in upgrade.members if upgrade else ():
        if member.instance == name and member.replaced_by and member.state.is_moving:
            return f"nothing until {member.replaced_by}, which comes for it, is healthy"
    for decision in answer.decisions:
        return f"something else first: {decision.reason}"
    return "nothing"


def _find_named(decision: Decision) -> tuple[str, ...]:
    """The instances that a decision is about."""
    match decision:
        case BeginBatch() | BeginRollback() | RenewInstances():
            return decision.instances
        case CreateInstance() | StartUpgrade() | EndBatch() | EndUpgrade() | SuspendRepairs():
            return ()
        case AskApproval():
            return ()
        case _:
            return (decision.instance,)
