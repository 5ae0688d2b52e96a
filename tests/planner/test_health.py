"""The judgement on one instance."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.health_source import Health as HealthSpec
from labctl.model.instance import (
    NO_DOMAIN,
    DomainFacts,
    ExtensionRun,
    Failure,
    Health,
    HealthState,
    Instance,
    Power,
    Rung,
)
from labctl.model.setup import Extension
from labctl.planner import Verdict, judge_health
from labctl.planner.health import extension_time_left, find_failure
from labctl.planner.situation import Situation, survey
from tests.planner.world import T0, make_generation, make_instance, make_set, make_spec


def judge_one(instance: Instance, **spec) -> Verdict:
    return judge_health(instance, make_set(1, spec=make_spec(1, **spec), instances=[instance]))


def situate(instance: Instance, **spec) -> Situation:
    return survey(make_set(1, spec=make_spec(1, **spec), instances=[instance]))[0]


def run(name: str = "app", *, start: int, seconds: int, exit_code: int | None) -> ExtensionRun:
    started_at = T0 + timedelta(seconds=start)
    return ExtensionRun(
        name=name,
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=seconds),
        exit_code=exit_code,
    )


def test_a_provisioned_instance_is_healthy_by_its_agent():
    assert judge_one(make_instance(0)).is_healthy


def test_without_a_source_power_and_extensions_decide():
    verdict = judge_one(
        make_instance(0, health=Health(state=HealthState.UNKNOWN)), health=HealthSpec()
    )
    assert verdict == Verdict(
        state=HealthState.HEALTHY, reason="running, every extension succeeded"
    )


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (
            {"domain": DomainFacts(generation=None, power=Power.UNKNOWN)},
            HealthState.UNKNOWN,
            "the hypervisor does not answer",
        ),
        (
            {"domain": DomainFacts(generation=1, power=Power.PAUSED, reason="I/O error")},
            HealthState.UNHEALTHY,
            "paused (I/O error)",
        ),
        (
            {"domain": DomainFacts(generation=1, power=Power.STOPPED, reason="shutdown")},
            HealthState.UNHEALTHY,
            "off (shutdown), though it should run",
        ),
        (
            {
                "domain": DomainFacts(generation=1, power=Power.STOPPED),
                "restart_asked_at": T0,
            },
            HealthState.INITIALIZING,
            "not started yet",
        ),
        (
            {
                "domain": NO_DOMAIN,
                "generations": (make_generation(started_at=None, ready_at=None),),
            },
            HealthState.INITIALIZING,
            "not started yet",
        ),
        (
            {"generation": 2, "generations": (make_generation(), make_generation(2))},
            HealthState.INITIALIZING,
            "still on OS disk 1, not 2",
        ),
        (
            {"generations": (make_generation(ready_at=None),)},
            HealthState.INITIALIZING,
            "starting: SSH or custom data is not through yet",
        ),
        (
            {"generations": (make_generation(extensions=()),)},
            HealthState.INITIALIZING,
            "extension 'app' has not succeeded yet",
        ),
        (
            {"health": Health(state=HealthState.HEALTHY)},
            HealthState.INITIALIZING,
            "health has not been checked since power-on",
        ),
        (
            {"health": Health(state=HealthState.HEALTHY, since=T0 - timedelta(days=1))},
            HealthState.INITIALIZING,
            "health has not been checked since power-on",
        ),
        (
            {"health": Health(state=HealthState.UNKNOWN, since=T0, detail="no answer")},
            HealthState.UNKNOWN,
            "no answer",
        ),
        (
            {"health": Health(state=HealthState.INITIALIZING, since=T0)},
            HealthState.INITIALIZING,
            "Initializing",
        ),
        (
            {
                "generations": (
                    make_generation(failure=Failure(rung=Rung.SSH, message="no banner", at=T0)),
                )
            },
            HealthState.UNHEALTHY,
            "ssh: no banner",
        ),
    ],
)
def test_the_verdict_names_what_is_missing_first(change, state, reason):
    verdict = judge_one(make_instance(0, **change))
    assert verdict == Verdict(state=state, reason=reason)


def test_unknown_counts_as_unhealthy_and_initializing_does_not():
    def verdict(state: HealthState) -> Verdict:
        return Verdict(state=state, reason="")

    assert verdict(HealthState.UNKNOWN).is_unhealthy
    assert verdict(HealthState.UNHEALTHY).is_unhealthy
    assert not verdict(HealthState.INITIALIZING).is_unhealthy
    assert not verdict(HealthState.HEALTHY).is_unhealthy


def test_a_failure_from_before_the_last_attempt_is_history():
    old = Failure(rung=Rung.SSH, message="no banner", at=T0 - timedelta(minutes=10))
    failed = make_instance(0, generations=(make_generation(failure=old),))
    assert find_failure(situate(failed)) == old
    asked = T0 - timedelta(minutes=5)
    assert find_failure(situate(replace(failed, restart_asked_at=asked))) is None
    assert find_failure(situate(replace(failed, rerun_custom_data_asked_at=asked))) is None


def test_a_failure_counts_when_nothing_was_ever_tried():
    failure = Failure(rung=Rung.POWER_ON, message="no memory", at=T0)
    never = make_generation(started_at=None, ready_at=None, extensions=(), failure=failure)
    assert (
        find_failure(situate(make_instance(0, generations=(never,), domain=NO_DOMAIN))) == failure
    )


@pytest.mark.parametrize(
    ("exit_code", "message"),
    [(3, "extension 'app' ended with 3"), (None, "extension 'app' did not end")],
)
def test_an_extension_that_ended_badly_is_a_failure(exit_code, message):
    ended = run(start=0, seconds=5, exit_code=exit_code)
    instance = make_instance(0, generations=(make_generation(extensions=(ended,)),))
    assert find_failure(situate(instance)) == Failure(
        rung=Rung.EXTENSIONS, message=message, at=T0 + timedelta(seconds=5)
    )


def test_an_extension_that_failed_before_this_power_on_is_run_again():
    ended = run(start=-7200, seconds=5, exit_code=1)
    instance = make_instance(0, generations=(make_generation(extensions=(ended,)),))
    assert find_failure(situate(instance)) is None


def test_an_extension_that_runs_is_no_failure():
    running = ExtensionRun(name="app", started_at=T0, finished_at=None, exit_code=None)
    instance = make_instance(0, generations=(make_generation(extensions=(running,)),))
    assert find_failure(situate(instance)) is None


TWO = (Extension(name="base", script="true"), Extension(name="app", script="true"))


@pytest.mark.parametrize(("minutes", "fails"), [(14, False), (15, True), (16, True)])
def test_the_time_budget_of_extensions_ends(minutes, fails):
    ended = run("base", start=0, seconds=minutes * 60, exit_code=0)
    instance = make_instance(0, generations=(make_generation(extensions=(ended,)),))
    situation = situate(instance, extensions=TWO, extensions_time_budget=timedelta(minutes=15))
    assert extension_time_left(situation) == timedelta(minutes=15 - minutes)
    failure = find_failure(situation)
    assert (failure is not None) is fails
    if failure is not None:
        assert failure.message == "the time budget of all extensions (15m) is spent"


def test_a_spent_budget_does_not_matter_when_all_have_succeeded():
    ended = tuple(run(n, start=0, seconds=3600, exit_code=0) for n in ("base", "app"))
    instance = make_instance(0, generations=(make_generation(extensions=ended),))
    situation = situate(instance, extensions=TWO, extensions_time_budget=timedelta(minutes=15))
    assert find_failure(situation) is None


def test_the_budget_counts_runs_and_not_the_time_since_ready():
    """`labctl rerun --extensions` a day later has the whole budget."""
    long_ago = make_generation(
        started_at=T0 - timedelta(days=2), ready_at=T0 - timedelta(days=2), extensions=()
    )
    situation = situate(make_instance(0, generations=(long_ago,)))
    assert extension_time_left(situation) == timedelta(minutes=90)
    assert find_failure(situation) is None
