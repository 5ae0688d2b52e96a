"""What becomes of the facts of an instance by its hooks; part of `foresight.py`."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from labctl.model.hook import HookKind
from labctl.model.instance import Generation, Instance
from labctl.model.instance_policy import RepairAction
from labctl.model.plan import RunHook, ScaleSet
from labctl.model.upgrade import Member


def end_hook(instance: Instance, action: RunHook, now: datetime) -> Instance:
    """The instance after a hook has done its work."""
    return replace(
        instance,
        drained_at=now if action.kind is HookKind.DRAIN else None,
        out_of_service_since=now if action.awaits_undrain else None,
        hook_failure=None,
    )


def is_replacement(scale_set: ScaleSet, ordinal: int) -> bool:
    """Does a new instance stand in for one that was drained and replaced by a repair?"""
    return scale_set.spec.upgrade_policy.hooks.undrain is not None and any(
        r.is_open and r.ordinal == ordinal and r.action is RepairAction.REPLACE
        for r in scale_set.repairs
    )


def find_member(scale_set: ScaleSet, instance: str) -> Member:
    """The part of an instance in the running upgrade. Raises LookupError without one."""
    members = scale_set.upgrade.members if scale_set.upgrade else ()
    for member in members:
        if member.instance == instance:
            return member
    raise LookupError(f"{instance} is in no upgrade")


def withdraw(instance: Instance, member: Member, now: datetime) -> Instance:
    """The instance with what it had before its batch; it was not stopped, and keeps running."""
    previous = member.from_generation
    if previous is not None and previous != instance.generation:
        # The new disk never ran: there is no evidence to save before it is thrown away.
        return replace(
            _change_current(instance, lambda g: replace(g, evidence_at=now)), generation=previous
        )
    model = member.from_model
    kept = replace(instance, restart_asked_at=None, domain=replace(instance.domain, is_stale=False))
    # Its seed is made again, as the model has it that it keeps.
    return _change_current(
        kept, lambda g: replace(g, model_revision=model or g.model_revision, prepared=False)
    )


def _change_current(instance: Instance, change: Callable[[Generation], Generation]) -> Instance:
    generations = tuple(
        change(g) if g.number == instance.generation else g for g in instance.generations
    )
    return replace(instance, generations=generations)
