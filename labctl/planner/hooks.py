"""Which hooks an instance needs: drained before labctl stops it, undrained when it is well."""

from datetime import datetime, timedelta

from labctl.model.hook import HookKind, OnHookFailure
from labctl.model.instance import HealthState, HookFailure, Power, Wanted
from labctl.model.plan import Hold, RunHook
from labctl.model.upgrade import MemberState
from labctl.planner.health import find_failure
from labctl.planner.situation import Situation

_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=1)


def find_drain(situation: Situation, reason: str) -> RunHook | None:
    """What comes before this instance is stopped or deleted; None: that may be done now.

    Whoever is about to stop one asks here, whatever it is stopped for: another OS disk, another
    definition, a restart, scale-in, a repair. One that is not ready serves nobody and is not
    drained; one that was drained and not undrained since, neither.
    """
    hook, instance = situation.hooks.drain, situation.instance
    if hook is None or situation.is_set_deleting or not _is_ready(situation):
        return None
    if _is_drained(situation):
        return None
    return RunHook(
        instance=instance.name,
        kind=HookKind.DRAIN,
        is_binding=hook.on_failure is OnHookFailure.STOP and not _is_forced(situation),
        awaits_undrain=situation.hooks.undrain is not None,
        reason=f"out of service before a stop: {reason}",
    )


def find_undrain(situation: Situation) -> RunHook | None:
    """What puts an instance that is healthy back into service; None: nothing is needed.

    It is asked for whoever is out of service, on whichever OS disk it has become healthy.
    """
    hook, instance = situation.hooks.undrain, situation.instance
    if hook is None or instance.out_of_service_since is None:
        return None
    return RunHook(
        instance=instance.name,
        kind=HookKind.UNDRAIN,
        is_binding=hook.on_failure is OnHookFailure.STOP,
        reason=f"healthy on OS disk {instance.generation}, back into service",
    )


def find_refused_drain(situation: Situation) -> str | None:
    """Why a member of the batch is not stopped: its drain has failed."""
    member, failure = situation.member, situation.instance.hook_failure
    if member is None or failure is None or failure.kind is not HookKind.DRAIN:
        return None
    # Started in its batch: it runs what the upgrade brought, and its user wants a restart of that.
    started, admitted = situation.current.started_at, member.admitted_at
    if started is not None and admitted is not None and started > admitted:
        return None
    return f"drain: {failure.message}" if member.state is MemberState.IN_PROGRESS else None


def find_refused_undrain(situation: Situation) -> str | None:
    """Why a healthy instance is not back in service: its undrain has failed on this OS disk."""
    failure = situation.instance.hook_failure
    if failure is None or failure.kind is not HookKind.UNDRAIN or find_undrain(situation) is None:
        return None
    return f"undrain: {failure.message}"


def await_next_try(situation: Situation, step: RunHook, now: datetime) -> Hold | None:
    """Wait before a hook that has failed is run again; None: run it now."""
    failure = situation.instance.hook_failure
    if failure is None or failure.kind is not step.kind or not step.is_binding:
        return None
    name, text = situation.instance.name, f"{step.kind}: {failure.message}"
    is_judged = step.kind is HookKind.UNDRAIN or find_refused_drain(situation) is not None
    if situation.is_moving and is_judged:
        return Hold(subject=name, reason=text)  # the upgrade has judged it, or is about to
    until = failure.at + find_wait(failure)
    if now >= until:
        return None
    reason = f"{text}; tried again at {until:%H:%M:%S} UTC; {_hint(situation)}"
    return Hold(subject=name, reason=reason, until=until)


def find_wait(failure: HookFailure) -> timedelta:
    """How long to wait after so many failures in a row."""
    # 1, 2, 4, 8, 16, 32 minutes, then an hour each time.
    return min(_FIRST_WAIT * (1 << min(failure.tries - 1, 10)), _LONGEST_WAIT)


def _hint(situation: Situation) -> str:
    if situation.instance.wanted is Wanted.DELETED:
        return "to go on without it, set its onFailure to Continue"
    return f"to try now: labctl instance restart {situation.instance.name}"


def _is_drained(situation: Situation) -> bool:
    instance, failure = situation.instance, situation.instance.hook_failure
    # The second holds across boots: a disk that was never undrained is restored without a drain.
    # One whose undrain failed may have got back into service before it did.
    is_tried = failure is not None and failure.kind is HookKind.UNDRAIN
    is_out = instance.out_of_service_since is not None and situation.hooks.undrain is not None
    return instance.drained_at is not None or (is_out and not is_tried)


def _is_ready(situation: Situation) -> bool:
    """Does the disk that runs, which may not be the one it should boot, have got to ready?"""
    domain = situation.instance.domain
    if domain.power is not Power.RUNNING or domain.generation is None:
        return False
    booted = situation.instance.find_generation(domain.generation)
    return booted is not None and booted.is_ready


def _is_forced(situation: Situation) -> bool:
    """Is it stopped because it is ill? Then a drain that cannot be done must not keep it so."""
    member, health = situation.member, situation.instance.health
    is_restored = member is not None and member.state is MemberState.ROLLING_BACK
    says_ill = health.state in {HealthState.UNHEALTHY, HealthState.UNKNOWN}
    is_ill = says_ill and health.since is not None  # None: it was not asked yet
    is_broken = find_failure(situation) is not None
    return is_restored or situation.repair is not None or is_ill or is_broken
