"""How the running upgrade moves on: members, batches, limits, the end."""

from collections.abc import Sequence
from datetime import datetime

from labctl.model.instance import Power, Wanted
from labctl.model.plan import (
    Action,
    BeginBatch,
    BeginRollback,
    CollectEvidence,
    Decision,
    EndBatch,
    EndUpgrade,
    Hold,
    MoveMember,
    Plan,
    ScaleSet,
)
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    Upgrade,
    UpgradeCode,
    UpgradeError,
    UpgradeErrorCode,
)
from labctl.planner.approval import await_approval, find_silence
from labctl.planner.batch import (
    Choice,
    choose_batch,
    count_batches,
    limit_batch,
    limit_next_batch,
    name_phase,
)
from labctl.planner.breach import end_faulted, stop_at_limit
from labctl.planner.gates import find_failed_canary, find_gate
from labctl.planner.health import (
    find_failure,
    is_credential_refused,
    is_on_its_way,
    is_restart_due,
    judge,
)
from labctl.planner.hooks import find_refused_drain, find_refused_undrain, find_undrain
from labctl.planner.lanes import bound_in_zone, find_lane
from labctl.planner.limits import (
    describe_refusal,
    find_refused_credential,
    find_unhealthy_set,
    find_unhealthy_upgraded,
)
from labctl.planner.situation import Situation
from labctl.planner.surge import (
    await_departures,
    conclude,
    find_stranded,
    find_stuck_departure,
    plan_surge,
    release_pair,
)


def plan_upgrade(scale_set: ScaleSet, situations: Sequence[Situation], now: datetime) -> Plan:
    """What the upgrade decides next; nothing when none is running."""
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.code.is_final:
        return Plan()
    if scale_set.is_deleting:
        return _end(upgrade, UpgradeCode.CANCELLED, "the scale set is being deleted")
    departed = _release_departed(upgrade, situations)
    if departed:
        return Plan(decisions=departed)
    if any(s.is_counted and s.instance.domain.power is Power.UNKNOWN for s in situations):
        # Nobody is judged unhealthy because libvirt is away.
        reason = f"upgrade {upgrade.id} waits: the hypervisor does not answer"
        return Plan(holds=(Hold(subject=scale_set.name, reason=reason),))
    moving = [s for s in situations if s.is_moving]
    if moving:
        return _plan_moving(scale_set, upgrade, moving, situations, now)
    if upgrade.batches and upgrade.batch_ended_at is None:
        ended = EndBatch(
            upgrade=upgrade.id, batch=upgrade.batches, reason="every instance has come to rest"
        )
        return Plan(decisions=(ended,))
    return _plan_between_batches(scale_set, upgrade, situations, now)


def _release_departed(upgrade: Upgrade, situations: Sequence[Situation]) -> tuple[Decision, ...]:
    """Members whose instance was deleted meanwhile, or stopped by its user in mid-batch."""
    wanted = {s.instance.name: s.instance.wanted for s in situations}
    moves: list[Decision] = []
    for member in sorted(upgrade.members, key=lambda m: m.ordinal):
        if member.replaced_by is not None and member.state.is_moving:
            moves += release_pair(upgrade, member, situations)
            continue
        is_waiting = member.state is MemberState.PENDING
        wish = wanted.get(member.instance, Wanted.DELETED)
        if wish is Wanted.DELETED and (is_waiting or member.state.is_moving):
            moves.append(_release(upgrade, member, "deleted meanwhile"))
        elif wish is Wanted.STOPPED and member.state.is_moving:
            moves.append(_release(upgrade, member, "stopped by its user meanwhile"))
    return tuple(moves)


def _release(upgrade: Upgrade, member: Member, reason: str) -> MoveMember:
    if member.state is MemberState.ROLLING_BACK:
        # It failed on the new disk; to skip it now would hide that.
        return _move(
            upgrade, member.instance, MemberState.ROLLBACK_FAILED, f"{member.message}; {reason}"
        )
    return _move(upgrade, member.instance, MemberState.SKIPPED, reason)


def _plan_moving(
    scale_set: ScaleSet,
    upgrade: Upgrade,
    moving: Sequence[Situation],
    situations: Sequence[Situation],
    now: datetime,
) -> Plan:
    """Judge every member of the batch that has not come to rest."""
    decisions: list[Decision] = []
    actions: list[Action] = []
    holds: list[Hold] = []
    for situation in moving:
        step = find_stranded(scale_set, upgrade, situation, now) or _judge_moving(
            upgrade, situation, now
        )
        if isinstance(step, MoveMember):
            decisions += conclude(step, situation, situations)
            decisions += _note_refusal(upgrade, situation, step, decisions)
        elif isinstance(step, CollectEvidence):
            actions.append(step)
        elif step is not None:  # None: its next step is the instance's own
            holds.append(step)
    return Plan(decisions=tuple(decisions), actions=tuple(actions), holds=tuple(holds))


def _note_refusal(
    upgrade: Upgrade, situation: Situation, move: MoveMember, before: Sequence[Decision]
) -> tuple[Decision, ...]:
    """Keep that a successor was refused a credential: it is deleted, and its failure with it."""
    member = situation.member
    is_noted = upgrade.error is not None or any(isinstance(d, BeginRollback) for d in before)
    if member is None or member.replaced_by is None or is_noted:
        return ()
    if move.state is not MemberState.FAILED or not is_credential_refused(situation):
        return ()
    message = describe_refusal(member.instance, f"{member.carrier}: {move.reason}")
    error = UpgradeError(code=UpgradeErrorCode.CREDENTIAL_REFUSED, message=message)
    reason = f"stops when the batch is through: {message}"
    return (BeginRollback(upgrade=upgrade.id, instances=(), error=error, reason=reason),)


def _judge_moving(
    upgrade: Upgrade, situation: Situation, now: datetime
) -> MoveMember | CollectEvidence | Hold | None:
    member, current = situation.member, situation.current
    assert member is not None  # noqa: S101 - only members are moving
    name = member.instance
    is_restoring = member.state is MemberState.ROLLING_BACK
    verdict = judge(situation)
    # One that gets its new model by a restart is still healthy on the old one.
    is_proven = verdict.is_healthy and not is_restart_due(situation)
    if (
        is_proven and find_undrain(situation) is None
    ):  # before the deadline is looked at: a late look finds a healthy one
        if is_restoring:
            # What failed on the new disk stays in the message: it is why the upgrade stops.
            reason = f"{member.message}; healthy again on {current.image_version}"
            return _move(upgrade, name, MemberState.ROLLED_BACK, reason)
        return _move(upgrade, name, MemberState.SUCCEEDED, f"healthy on {current.image_version}")
    refused = find_refused_drain(situation) or _find_refused_step(upgrade, situation, member, now)
    if refused is not None:
        return MoveMember(
            upgrade=upgrade.id,
            instance=name,
            state=MemberState.FAILED,
            reason=refused,
            is_untouched=True,
        )
    if is_proven:  # and not yet back in service
        failure = find_refused_undrain(situation)
        if failure is None:
            return None
    else:
        failure = _find_failure(upgrade, situation, member, now)
    if failure is None:
        return _hold_for_health(upgrade, situation, member, now)
    if is_restoring:
        reason = f"{member.message}; on the restored disk: {failure}"
        return _move(upgrade, name, MemberState.ROLLBACK_FAILED, reason)
    if current.evidence_at is None:
        return CollectEvidence(
            instance=member.carrier, generation=current.number, upgrade=upgrade.id, reason=failure
        )
    # A refused credential says nothing against the image, and the previous disk would need it as
    # well: the instance is left failed, until the credential is renewed and the model applied.
    is_restored = upgrade.restores and not is_credential_refused(situation)
    state = MemberState.ROLLING_BACK if is_restored else MemberState.FAILED
    return _move(upgrade, name, state, failure)


def _move(upgrade: Upgrade, instance: str, state: MemberState, reason: str) -> MoveMember:
    return MoveMember(upgrade=upgrade.id, instance=instance, state=state, reason=reason)


def _find_failure(
    upgrade: Upgrade, situation: Situation, member: Member, now: datetime
) -> str | None:
    """Why this member will not become healthy, if that is certain or its time is over."""
    failure = find_failure(situation)
    if failure is not None:
        return f"{failure.rung}: {failure.message}"
    domain = situation.instance.domain
    is_on_it = domain.generation == situation.current.number
    if is_on_it and domain.power in {Power.PAUSED, Power.CRASHED}:
        return judge(situation).reason
    refused = _find_setback(upgrade, situation, member, now)
    if refused is not None:
        return refused
    if member.settled_at is not None and now >= member.settled_at + upgrade.health_timeout:
        seconds = upgrade.health_timeout.total_seconds()
        return f"not healthy within {seconds:g} s: {judge(situation).reason}"
    return None


def _find_refused_step(
    upgrade: Upgrade, situation: Situation, member: Member, now: datetime
) -> str | None:
    """Why one that still runs as before its batch is left so: the host does not let it begin."""
    is_before = member.stopped_at is None and member.replaced_by is None
    is_forward = member.state is MemberState.IN_PROGRESS
    return _find_setback(upgrade, situation, member, now) if is_before and is_forward else None


def _find_setback(
    upgrade: Upgrade, situation: Situation, member: Member, now: datetime
) -> str | None:
    """What the host has refused for as long as health may take; a daemon tries for ever else."""
    setback = situation.setback
    moments = [member.admitted_at, member.stopped_at, situation.tried_at]
    since = max((moment for moment in moments if moment is not None), default=None)
    if setback is None or since is None or now < since + upgrade.health_timeout:
        return None
    seconds = upgrade.health_timeout.total_seconds()
    return f"{setback.step} failed again and again for {seconds:g} s: {setback.reason}"


def _hold_for_health(
    upgrade: Upgrade, situation: Situation, member: Member, now: datetime
) -> Hold | None:
    if member.settled_at is None:
        return None
    until = member.settled_at + upgrade.health_timeout
    left, whole = (until - now).total_seconds(), upgrade.health_timeout.total_seconds()
    disk = " on the restored disk" if member.state is MemberState.ROLLING_BACK else ""
    return Hold(
        subject=member.carrier,
        reason=f"waiting for health of {member.carrier}{disk}, {left:.0f} s of {whole:g} s left: "
        f"{judge(situation).reason}",
        until=until,
    )


def _plan_between_batches(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation], now: datetime
) -> Plan:
    """Stop, end, pause, or begin the next batch."""
    if upgrade.code is UpgradeCode.ROLLING_BACK and upgrade.error is not None:
        return end_faulted(upgrade, upgrade.error)  # what was to go back has come to rest
    # Limits first: a cancel must not hide that the image is bad, or a credential refused.
    refused = find_refused_credential(upgrade, situations)
    if refused is not None:
        error = UpgradeError(code=UpgradeErrorCode.CREDENTIAL_REFUSED, message=refused)
        return end_faulted(upgrade, error)
    fault = find_unhealthy_upgraded(upgrade, situations)
    if fault is not None:
        error = UpgradeError(code=UpgradeErrorCode.UNHEALTHY_UPGRADED, message=fault)
        return stop_at_limit(upgrade, error, situations)
    pending = [m for m in upgrade.members if m.state is MemberState.PENDING]
    if not pending:
        return _end(upgrade, UpgradeCode.COMPLETED, "no instance is left to upgrade")
    ill = find_failed_canary(upgrade, situations, now)
    if ill is not None:
        error = UpgradeError(code=UpgradeErrorCode.CANARY_UNHEALTHY, message=ill)
        return stop_at_limit(upgrade, error, situations)
    if upgrade.cancel_asked_at is not None:
        why = upgrade.cancel_reason or "cancelled"
        return _end(upgrade, UpgradeCode.CANCELLED, f"{why}, {len(pending)} not upgraded")
    automatic = scale_set.spec.upgrade_policy.automatic_os_upgrade_policy
    if upgrade.started_by is StartedBy.PLATFORM and not automatic.enable_automatic_os_upgrade:
        reason = f"automatic OS upgrades were switched off, {len(pending)} not upgraded"
        return _end(upgrade, UpgradeCode.CANCELLED, reason)
    silence = find_silence(upgrade, now)
    if silence is not None:
        return _end(upgrade, UpgradeCode.CANCELLED, f"{silence}, {len(pending)} not upgraded")
    gate = find_gate(scale_set, upgrade, situations, now)
    if gate is not None:
        return Plan(holds=(gate,))
    return _plan_next_batch(scale_set, upgrade, situations, now)


def _plan_next_batch(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation], now: datetime
) -> Plan:
    choice = choose_batch(situations, upgrade)
    skips = tuple(
        _move(upgrade, s.instance.name, MemberState.SKIPPED, reason) for s, reason in choice.skipped
    )
    if not choice.batch:
        names = ", ".join(s.instance.name for s in choice.waiting)
        why = "not up yet" if any(map(is_on_its_way, choice.waiting)) else "health is initializing"
        hold = Hold(subject=scale_set.name, reason=f"the next batch waits for {names}: {why}")
        return Plan(decisions=skips, holds=(hold,) if names else ())
    fault = find_unhealthy_set(situations, upgrade.policy)
    if fault is not None:
        code = (
            UpgradeErrorCode.UNHEALTHY_DURING
            if upgrade.batches
            else UpgradeErrorCode.UNHEALTHY_BEFORE
        )
        return stop_at_limit(upgrade, UpgradeError(code=code, message=fault), situations)
    stuck = find_stuck_departure(upgrade, situations)
    if stuck is not None:
        error = UpgradeError(code=UpgradeErrorCode.DRAIN_FAILED, message=stuck)
        return stop_at_limit(upgrade, error, situations)
    departing = await_departures(scale_set, upgrade, situations)
    if departing is not None:
        return Plan(decisions=skips, holds=(departing,))
    begin = _begin(scale_set, upgrade, situations, choice)
    wait = await_approval(scale_set, upgrade, begin, now)
    if isinstance(wait, Hold):
        return Plan(decisions=skips, holds=(wait,))
    return Plan(decisions=(*skips, begin if wait is None else wait))


def _begin(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation], choice: Choice
) -> BeginBatch:
    number = upgrade.batches + 1
    batch = choice.batch
    settled = {s.instance.name for s in (*batch, *(s for s, _ in choice.skipped))}
    later = [
        s
        for s in situations
        if (m := s.member) is not None
        and m.state is MemberState.PENDING
        and m.instance not in settled
        and not m.skips_upgrade
    ]
    counted = [s for s in situations if s.is_counted]
    usual = bound_in_zone(limit_batch(len(counted), upgrade.policy), counted, upgrade)
    limit = min(usual, limit_next_batch(len(counted), upgrade))
    total = number + count_batches(later, upgrade, usual)
    canary = "canary, " if upgrade.control.canary is not None and number == 1 else ""
    place = f"{name_phase(upgrade, batch[0].member)}{find_lane(batch[0], upgrade).text}"
    surge = plan_surge(scale_set, upgrade, situations, batch)
    return BeginBatch(
        upgrade=upgrade.id,
        batch=number,
        instances=tuple(s.instance.name for s in batch),
        reason=f"batch {number} of {total} to {upgrade.target}{place}: "
        f"{canary}at most {limit} of {len(counted)} at once{surge.reason}",
        replacements=surge.replacements,
    )


def _end(upgrade: Upgrade, code: UpgradeCode, reason: str) -> Plan:
    return Plan(decisions=(EndUpgrade(upgrade=upgrade.id, code=code, reason=reason),))
