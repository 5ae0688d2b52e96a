"""Is an instance well, on its way, or has it failed? Read off its facts."""

from dataclasses import dataclass
from datetime import timedelta

from labctl.model.instance import (
    ExtensionFault,
    ExtensionRun,
    Failure,
    HealthState,
    Instance,
    Power,
    Rung,
)
from labctl.model.plan import ScaleSet
from labctl.model.quantity import format_duration
from labctl.model.setup import Extension
from labctl.planner.situation import Situation, survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement on an instance. INITIALIZING: wait; UNHEALTHY and UNKNOWN: unhealthy."""

    state: HealthState
    reason: str

    @property
    def is_healthy(self) -> bool:
        """Does it do its work?"""
        return self.state is HealthState.HEALTHY

    @property
    def is_unhealthy(self) -> bool:
        """Does it count against the limits of an upgrade?"""
        return self.state in {HealthState.UNHEALTHY, HealthState.UNKNOWN}


def judge_health(instance: Instance, scale_set: ScaleSet) -> Verdict:
    """Judge one instance of a scale set; the answer carries its reason."""
    return next(judge(s) for s in survey(scale_set) if s.instance.name == instance.name)


def judge(situation: Situation) -> Verdict:
    """Power state and extensions; then the health source of its model, if that has one."""
    instance, current, domain = (
        situation.instance,
        situation.current,
        situation.instance.domain,
    )
    failure = find_failure(situation)
    if domain.power is Power.UNKNOWN:
        return Verdict(state=HealthState.UNKNOWN, reason="the hypervisor does not answer")
    if failure is not None:
        return _unhealthy(f"{failure.rung}: {failure.message}")
    if domain.power in {Power.PAUSED, Power.CRASHED}:
        return _unhealthy(f"{domain.power.lower()} ({domain.reason or 'no reason given'})")
    if domain.power is Power.STOPPED:
        if current.started_at is None or is_restart_due(situation):
            return _initializing("not started yet")
        return _unhealthy(f"off ({domain.reason or 'no reason given'}), though it should run")
    if domain.generation != instance.generation:
        return _initializing(f"still on OS disk {domain.generation}, not {instance.generation}")
    if not current.is_ready:
        return _initializing("starting: SSH or custom data is not through yet")
    extension = find_next_extension(situation)
    if extension is not None:
        return _initializing(f"extension {extension.name!r} has not succeeded yet")
    return _judge_source(situation)


def _judge_source(situation: Situation) -> Verdict:
    """What the agent or the probe says, given that everything below it is in order."""
    source, health = situation.model.health, situation.instance.health
    if source.application_health is None and source.probe is None:
        return Verdict(state=HealthState.HEALTHY, reason="running, every extension succeeded")
    started_at = situation.current.started_at
    if health.since is None or (started_at is not None and health.since < started_at):
        # A verdict from before this power-on is about another boot, perhaps another OS disk.
        return _initializing("health has not been checked since power-on")
    return Verdict(state=health.state, reason=health.detail or health.state.value)


def is_on_its_way(situation: Situation) -> bool:
    """Is it still being provisioned or restarted? To replace its disk now would prove nothing."""
    is_through = situation.instance.is_settled and find_next_extension(situation) is None
    return judge(situation).state is HealthState.INITIALIZING and not is_through


def is_initializing(situation: Situation) -> bool:
    """Does its application, by rich health states, still have its grace period?

    Only rich states end it for certain; a probe whose answers alternate would be waited for
    without end.
    """
    source = situation.model.health.application_health
    return (
        source is not None and source.is_rich and judge(situation).state is HealthState.INITIALIZING
    )


def is_restart_due(situation: Situation) -> bool:
    """Has its user asked for a restart since it was last switched on?"""
    asked, started = situation.instance.restart_asked_at, situation.current.started_at
    # Not recorded as started: its power-off for this very restart may be under way.
    return asked is not None and (started is None or asked > started)


def find_failure(situation: Situation) -> Failure | None:
    """Why the instance does not get further, unless it was told to try again since."""
    found = (situation.current.failure, _find_extension_failure(situation))
    since = situation.tried_at
    return next((f for f in found if f is not None and (since is None or f.at >= since)), None)


def find_next_extension(situation: Situation) -> Extension | None:
    """The first extension of its model that is not through and whose forerunners are."""
    extensions = situation.model.extensions
    through = {each.name for each in extensions if situation.current.is_through(each)}
    for extension in extensions:
        after = extension.provision_after_extensions
        if extension.name not in through and all(name in through for name in after):
            return extension
    return None


def extension_time_left(situation: Situation) -> timedelta:
    """What the extensions that ended on this OS disk have left of the total budget.

    Runs are added up instead of counting from `ready_at`, so that neither `labctl rerun` days
    later nor a controller that was away for hours finds the budget spent.
    """
    spent = sum(
        (
            run.finished_at - run.started_at
            for run in situation.current.extensions
            if run.finished_at is not None
        ),
        start=timedelta(0),
    )
    return situation.model.extensions_time_budget - spent


def is_credential_refused(situation: Situation) -> bool:
    """Has it failed because a credential of an extension has expired or is refused?"""
    return any(run.fault is ExtensionFault.CREDENTIAL for run in _find_failed_runs(situation))


def _find_ended_runs(situation: Situation) -> list[ExtensionRun]:
    """Those that count for this power-on."""
    ready_at = situation.current.ready_at
    return [
        run
        for run in situation.current.extensions
        if run.finished_at is not None and ready_at is not None and run.started_at >= ready_at
    ]


def _find_failed_runs(situation: Situation) -> list[ExtensionRun]:
    """Those that failed, unless their extension may."""
    tolerated = {each.name for each in situation.model.extensions if each.suppress_failures}
    return [
        run
        for run in _find_ended_runs(situation)
        if not run.has_succeeded and run.name not in tolerated
    ]


def _find_extension_failure(situation: Situation) -> Failure | None:
    for run in _find_failed_runs(situation):
        if run.finished_at is not None:
            how = "did not end" if run.exit_code is None else f"ended with {run.exit_code}"
            if run.fault is not None:
                how = f"has no usable {run.fault}"
            return Failure(
                rung=Rung.EXTENSIONS,
                message=f"extension {run.name!r} {how}",
                at=run.finished_at,
            )
    ended = _find_ended_runs(situation)
    if ended and find_next_extension(situation) and extension_time_left(situation) <= timedelta(0):
        budget = format_duration(situation.model.extensions_time_budget)
        return Failure(
            rung=Rung.EXTENSIONS,
            message=f"the time budget of all extensions ({budget}) is spent",
            at=max(run.finished_at for run in ended if run.finished_at is not None),
        )
    return None


def _unhealthy(reason: str) -> Verdict:
    return Verdict(state=HealthState.UNHEALTHY, reason=reason)


def _initializing(reason: str) -> Verdict:
    return Verdict(state=HealthState.INITIALIZING, reason=reason)
