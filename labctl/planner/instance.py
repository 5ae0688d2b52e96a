"""The next step of one instance, read off its facts, most urgent first."""

from labctl.model.instance import Power, Rung, Wanted
from labctl.model.plan import (
    Action,
    AwaitReady,
    Define,
    DeleteInstance,
    DiscardGeneration,
    Hold,
    Prepare,
    RerunCustomData,
    RunExtension,
    Start,
    Stop,
)
from labctl.planner.health import find_failure, find_next_extension, is_restart_due, judge
from labctl.planner.hooks import find_drain, find_undrain
from labctl.planner.situation import Situation


def find_next_step(situation: Situation) -> Action | Hold | None:
    """One action, or why there is none; None when all is as it should be.

    Whether the host has room for a boot is not asked here; see `boot.py`.
    """
    instance, current, domain = situation.instance, situation.current, situation.instance.domain
    name = instance.name
    if domain.power is Power.UNKNOWN:
        return Hold(subject=name, reason="the hypervisor does not answer")
    if instance.wanted is Wanted.DELETED:
        return find_drain(situation, "it is to be deleted") or DeleteInstance(
            instance=name, reason="it is to be deleted; data disks are kept"
        )
    if instance.wanted is Wanted.STOPPED:
        return Stop(instance=name, reason="its user stopped it") if situation.is_powered else None
    failure = find_failure(situation)
    if failure is not None:
        return Hold(
            subject=name,
            reason=f"failed at {failure.rung}: {failure.message}; to try again: "
            f"labctl instance restart {name}, or labctl apply",
        )
    if not current.prepared:
        # Before anything stops, so that the swap costs no more than stop and boot.
        return Prepare(instance=name, generation=current.number, reason=situation.errand)
    if domain.generation != current.number:
        if situation.is_powered:
            return find_drain(situation, situation.errand) or Stop(
                instance=name, reason=situation.errand
            )
        return Define(instance=name, generation=current.number, reason=situation.errand)
    if domain.power is Power.RUNNING or domain.power is Power.PAUSED:
        return _find_step_of_powered(situation)
    return _find_step_of_off(situation)


def _find_step_of_off(situation: Situation) -> Action:
    """The domain has the right OS disk; get it to run."""
    name, current, domain = (
        situation.instance.name,
        situation.current,
        situation.instance.domain,
    )
    if domain.power is Power.CRASHED:
        return Stop(instance=name, reason=f"crashed ({domain.reason}); off, then on again")
    if domain.is_stale:
        return Define(instance=name, generation=current.number, reason="its model has changed")
    if situation.is_moving:
        reason = situation.errand
    elif is_restart_due(situation):
        reason = _restart_reason(situation)
    elif current.started_at is None:
        reason = situation.errand
    else:
        reason = f"found off ({domain.reason or 'no reason given'}), though it should run"
    return Start(instance=name, generation=current.number, reason=reason)


def _restart_reason(situation: Situation) -> str:
    repair = situation.repair
    if repair is not None and repair.began_at == situation.instance.restart_asked_at:
        return f"repair {repair.id}: restart"
    if situation.instance.domain.is_stale:
        return "its model has changed"
    return "its user asked for a restart"


def _find_step_of_powered(situation: Situation) -> Action | Hold | None:
    """The domain runs the right OS disk; get it ready, then tidy up."""
    instance, current, domain = situation.instance, situation.current, situation.instance.domain
    name = instance.name
    if is_restart_due(situation):
        reason = _restart_reason(situation)
        return find_drain(situation, reason) or Stop(instance=name, reason=reason)
    if domain.power is Power.PAUSED:
        return Hold(
            subject=name,
            reason=f"paused by the hypervisor ({domain.reason or 'no reason given'}); look for a "
            f"full disk on the host, then: labctl instance restart {name}",
        )
    if current.started_at is None:
        # The controller died after the power-on and before it wrote that down.
        return Start(
            instance=name, generation=current.number, reason="runs, but its start is not recorded"
        )
    if instance.rerun_custom_data_asked_at is not None and (
        current.is_ready
        # It stopped short of ready because of its custom data, so that is what to try again.
        or (current.failure is not None and current.failure.rung is Rung.CUSTOM_DATA)
    ):
        return RerunCustomData(
            instance=name, generation=current.number, reason="its user asked for it"
        )
    if not current.is_ready:
        return AwaitReady(instance=name, generation=current.number, reason=situation.errand)
    extension = find_next_extension(situation)
    if extension is not None:
        after = ", ".join(extension.provision_after_extensions)
        return RunExtension(
            instance=name,
            generation=current.number,
            extension=extension.name,
            reason=f"after {after}" if after else f"new OS disk {current.number}",
            tag=extension.force_update_tag,
        )
    verdict = judge(situation)
    if not verdict.is_healthy:
        return Hold(subject=name, reason=f"waiting for health: {verdict.reason}")
    return find_undrain(situation) or _find_discard(situation)


def _find_discard(situation: Situation) -> DiscardGeneration | None:
    """An OS disk that nothing needs any more, now that the current one is proven healthy."""
    if situation.is_moving:
        return None  # the previous disk is the way back until the upgrade has judged
    if situation.may_go_back:
        return None  # the same until the upgrade is over, also for one that has recovered
    instance = situation.instance
    for generation in instance.generations:
        if generation.number == instance.generation:
            continue
        is_older = generation.number < instance.generation
        # A newer disk was rolled back from; it stays until its evidence is saved.
        if is_older or generation.evidence_at is not None:
            return DiscardGeneration(
                instance=instance.name,
                generation=generation.number,
                reason=f"OS disk {instance.generation} is healthy"
                if is_older
                else f"its evidence is saved and OS disk {instance.generation} is healthy",
            )
    return None
