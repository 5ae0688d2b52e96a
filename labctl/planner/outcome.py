"""What an instance looks like after an action on it went well."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from labctl.model.instance import (
    NOT_CHECKED,
    DomainFacts,
    ExtensionRun,
    Generation,
    Instance,
    Power,
)
from labctl.model.plan import (
    Action,
    AwaitReady,
    CollectEvidence,
    Define,
    DeleteInstance,
    DiscardGeneration,
    Prepare,
    RerunCustomData,
    RunExtension,
    RunHook,
    Start,
    Stop,
)
from labctl.planner.hook_facts import end_hook


def apply(instance: Instance, action: Action, now: datetime) -> Instance | None:
    """The instance after an action on it went well; None: it is gone."""
    domain = instance.domain
    match action:
        case Prepare():
            return change_current(instance, lambda g: replace(g, prepared=True))
        case RunHook():
            return end_hook(instance, action, now)
        case Stop():
            off = replace(domain, power=Power.STOPPED, reason="shutdown")
            return replace(mark_stopping(instance), domain=off)
        case Define():
            defined = DomainFacts(generation=action.generation, power=Power.STOPPED)
            return replace(instance, domain=defined)
        case Start():
            running = replace(domain, power=Power.RUNNING, reason="booted")
            fresh = replace(instance, domain=running, health=NOT_CHECKED)
            return change_current(
                fresh, lambda g: replace(g, started_at=now, failure=None, evidence_at=None)
            )
        case AwaitReady():
            return change_current(instance, lambda g: replace(g, ready_at=now))
        case RunExtension():
            run = ExtensionRun(
                name=action.extension,
                started_at=now,
                finished_at=now,
                exit_code=0,
                tag=action.tag,
            )
            return change_current(instance, lambda g: replace(g, extensions=_add(g, run)))
        case RerunCustomData():
            return replace(instance, rerun_custom_data_asked_at=None)
        case CollectEvidence():
            return change_current(instance, lambda g: replace(g, evidence_at=now))
        case DiscardGeneration():
            kept = tuple(g for g in instance.generations if g.number != action.generation)
            return replace(instance, generations=kept)
        case DeleteInstance():
            return None
        case _:
            assert_never(action)


def mark_stopping(instance: Instance) -> Instance:
    """What is written before a stop: from then on, being off is no crash."""
    cleared = tuple(replace(g, started_at=None, ready_at=None) for g in instance.generations)
    return replace(
        instance,
        generations=cleared,
        health=NOT_CHECKED,
        drained_at=None,
        hook_failure=None,
    )


def change_current(instance: Instance, change: Callable[[Generation], Generation]) -> Instance:
    """Change the generation that the instance should boot."""
    return change_generation(instance, instance.generation, change)


def change_generation(
    instance: Instance, number: int | None, change: Callable[[Generation], Generation]
) -> Instance:
    """Change the generation with this number."""
    generations = tuple(change(g) if g.number == number else g for g in instance.generations)
    return replace(instance, generations=generations)


def _add(generation: Generation, run: ExtensionRun) -> tuple[ExtensionRun, ...]:
    return (*(r for r in generation.extensions if r.name != run.name), run)
