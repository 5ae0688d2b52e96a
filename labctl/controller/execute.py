"""Carries out one action on one instance and writes down what came of it."""

from typing import assert_never

from labctl.controller.evidence import collect_evidence
from labctl.controller.guests import Guests
from labctl.controller.journal import fail, note
from labctl.controller.lab import Lab
from labctl.controller.observe import Observer
from labctl.controller.signals import Signal
from labctl.controller.swap import Swap
from labctl.drivers.readiness import NotReadyError
from labctl.errors import HostError, LabError
from labctl.model.event import EventKind
from labctl.model.instance import (
    Instance,
    Rung,
    Wanted,
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
    ScaleSet,
    Start,
    Stop,
)


class Executor:
    """The hands of one reconciler. `execute` runs in threads, one per instance at most."""

    def __init__(self, lab: Lab, observer: Observer) -> None:
        self._lab = lab
        self._observer = observer
        self._guests = Guests(lab)
        self._swap = Swap(lab, observer, self._guests)

    def close(self) -> None:
        """Hang up on every guest."""
        self._guests.close()

    def remove_scale_set(self, view: ScaleSet) -> None:
        """Forget a scale set whose last instance is gone; data disks stay where they are."""
        self._swap.remove_scale_set(view)

    def execute(self, view: ScaleSet, action: Action, signal: Signal) -> None:
        """Do it, and record the facts.

        Raises HostError when the host, not the instance, fails; LabError when an instance can
        neither be taken away nor tidied up.
        """
        instance = next(i for i in view.instances if i.name == action.instance)
        try:
            self._perform(view, instance, action, signal)
        except HostError:
            raise
        except LabError as error:
            if signal.is_cancelled:
                return
            if _is_asked_again_regardless(action, instance):
                raise
            fail(
                self._lab.database,
                view,
                instance,
                _rung_of(action, error),
                error.brief,
                detail="\n".join(line for line in (error.detail, error.hint) if line),
            )

    def _perform(self, view: ScaleSet, instance: Instance, action: Action, signal: Signal) -> None:
        match action:
            case Prepare():
                self._swap.prepare(
                    view, instance, instance.get_generation(action.generation), action
                )
            case Stop():
                self._swap.stop(view, instance, action, signal)
            case Define():
                self._swap.define(
                    view, instance, instance.get_generation(action.generation), action
                )
            case Start():
                self._swap.start(view, instance, instance.get_generation(action.generation), action)
            case AwaitReady():
                self._guests.await_ready(view, instance, instance.current, signal)
            case RunExtension():
                self._guests.run_extension(view, instance, action, signal)
            case RunHook():
                self._guests.run_hook(view, instance, action, signal)
            case RerunCustomData():
                self._guests.rerun_custom_data(view, instance, signal)
            case CollectEvidence():
                collect_evidence(
                    self._lab,
                    view,
                    instance,
                    action,
                    samples=self._observer.samples(instance.name),
                    connection=self._guests.connection(instance.name),
                )
                note(
                    self._lab.database,
                    view,
                    instance,
                    EventKind.STEP,
                    "evidence of the failure saved",
                )
            case DiscardGeneration():
                self._swap.discard(view, instance, action)
            case DeleteInstance():
                self._swap.delete(view, instance, action)
            case _:
                assert_never(action)


def _is_asked_again_regardless(action: Action, instance: Instance) -> bool:
    """Would the planner ask for it again at once, whatever failure is recorded?"""
    return instance.wanted is not Wanted.RUNNING or isinstance(action, DiscardGeneration)


def _rung_of(action: Action, error: LabError) -> Rung:
    if isinstance(error, NotReadyError):
        return error.rung
    match action:
        case RunExtension():
            return Rung.EXTENSIONS
        case RerunCustomData():
            return Rung.CUSTOM_DATA
        case _:
            return Rung.POWER_ON
