"""What `upgrade start` would do, batch by batch, if everything succeeded."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from labctl.model.hook import HookKind
from labctl.model.plan import (
    AskApproval,
    BeginBatch,
    EndUpgrade,
    Hold,
    HostCapacity,
    MoveMember,
    Plan,
    RunHook,
    ScaleSet,
)
from labctl.model.upgrade import MemberState, StartedBy, Upgrade
from labctl.planner.admission import Refusal, admit_upgrade, find_purpose
from labctl.planner.foresight import record, succeed
from labctl.planner.lanes import find_lane
from labctl.planner.members import make_members
from labctl.planner.plan import plan
from labctl.planner.situation import survey

# When each instance boots depends on the host and changes no batch.
_BOUNDLESS = HostCapacity(boots_at_once=10**6, free_memory=2**60, overhead_per_instance=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewBatch:
    """One batch that would be upgraded together."""

    number: int
    instances: tuple[str, ...]
    reason: str
    replacements: tuple[tuple[str, str], ...] = ()  # by maxSurge: who comes for whom
    phase: int | None = None  # None: the last one, or there are none
    zone: str | None = None  # None: there are none, or it may span them
    update_domain: int | None = None  # None: not a cluster-managed scale set
    needs_approval: bool = False  # taken for granted here
    approved_by: str = ""  # who is asked, where an approval is needed
    drains: tuple[str, ...] = ()  # instances that the drain hook would run for
    undrains: tuple[str, ...] = ()
    after_pause: timedelta  # since the batch before it ended, or the upgrade started


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The whole upgrade as it would go."""

    refusal: Refusal | None = None  # why it would not start; then the rest is empty
    batches: tuple[PreviewBatch, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # instance and reason
    ending: str = ""  # how it would end
    stuck: tuple[Hold, ...] = ()  # what it would wait for without end


def preview(
    scale_set: ScaleSet,
    *,
    target_version: str,
    target_digest: str,
    now: datetime,
    restores: bool = False,
    ignores_windows: bool = False,
) -> Preview:
    """Ask `plan` again and again, with every action succeeding at once."""
    refusal = admit_upgrade(
        scale_set, target_version=target_version, target_digest=target_digest, now=now
    )
    if refusal is not None:
        return Preview(refusal=refusal)
    policy = scale_set.spec.upgrade_policy
    upgrade = Upgrade(
        id=0,
        scale_set=scale_set.name,
        started_by=StartedBy.USER,
        target_version=target_version,
        target_digest=target_digest,
        model_revision=scale_set.model_revision,
        purpose=find_purpose(scale_set, target_digest),
        policy=policy.rolling_upgrade_policy,
        control=policy.control,
        health_timeout=policy.health_timeout,
        restores=restores,
        ignores_windows=ignores_windows,
        started_at=now,
        members=make_members(scale_set),
    )
    return _walk(replace(scale_set, upgrade=upgrade), now)


def _plan(scale_set: ScaleSet, now: datetime) -> Plan:
    """The plan where every boot has room; new instances by maxSurge need room that there is."""
    boundless = replace(scale_set, capacity=_BOUNDLESS)
    if scale_set.upgrade is None or not scale_set.upgrade.policy.max_surge:
        return plan(boundless, now)
    step = plan(scale_set, now)
    return step if step.decisions else plan(boundless, now)


def _walk(scale_set: ScaleSet, now: datetime) -> Preview:
    batches: list[PreviewBatch] = []
    skipped: list[tuple[str, str]] = []
    ending = ""  # what comes after it: who was replaced leaves, with its drain
    while True:
        step = _plan(scale_set, now)
        for decision in step.decisions:
            match decision:
                case BeginBatch():
                    batches.append(_describe(scale_set, decision, now))
                case MoveMember(state=MemberState.SKIPPED):
                    skipped.append((decision.instance, decision.reason))
                case EndUpgrade():
                    ending = f"{decision.code}: {decision.reason}"
                case _:
                    pass
            scale_set = record(scale_set, decision, now)
            if isinstance(decision, AskApproval):
                scale_set = _approve(scale_set, decision.batch)
        for action in step.actions:
            if isinstance(action, RunHook) and batches:
                batches[-1] = _add_hook(batches[-1], action)
            scale_set = succeed(scale_set, action, now)
        if ending and not step.actions and not step.decisions:
            return Preview(batches=tuple(batches), skipped=tuple(skipped), ending=ending)
        if not (step.decisions or step.actions):
            later = [hold.until for hold in step.holds if hold.until is not None]
            if not later:
                return Preview(batches=tuple(batches), skipped=tuple(skipped), stuck=step.holds)
            now = min(later)


def _add_hook(batch: PreviewBatch, action: RunHook) -> PreviewBatch:
    if action.kind is HookKind.DRAIN:
        return replace(batch, drains=(*batch.drains, action.instance))
    return replace(batch, undrains=(*batch.undrains, action.instance))


def _approve(scale_set: ScaleSet, batch: int) -> ScaleSet:
    upgrade = scale_set.upgrade
    assert upgrade is not None  # noqa: S101 - it has just asked
    return replace(scale_set, upgrade=replace(upgrade, approved_batch=batch))


def _describe(scale_set: ScaleSet, decision: BeginBatch, now: datetime) -> PreviewBatch:
    upgrade = scale_set.upgrade
    before = (upgrade.batch_ended_at or upgrade.started_at) if upgrade else now
    first = next(s for s in survey(scale_set) if s.instance.name == decision.instances[0])
    lane = None if upgrade is None else find_lane(first, upgrade)
    is_approved = upgrade is not None and upgrade.approved_batch == decision.batch
    approval = upgrade.control.approval if upgrade is not None else None
    return PreviewBatch(
        number=decision.batch,
        instances=decision.instances,
        reason=decision.reason,
        phase=None if first.member is None else first.member.phase,
        zone=None if lane is None else lane.zone,
        update_domain=None if lane is None else lane.update_domain,
        needs_approval=is_approved,
        approved_by=approval.asked if is_approved and approval is not None else "",
        after_pause=now - before,
        replacements=tuple(
            (f"{scale_set.name}_{each.ordinal}", each.instance) for each in decision.replacements
        ),
    )
