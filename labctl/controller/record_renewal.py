"""Writes into the store that an instance gets another model, or keeps its own after all."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from labctl.model.instance import Identity, Instance
from labctl.model.plan import (
    ScaleSet,
)
from labctl.planner.hook_facts import find_member, withdraw
from labctl.store.instances import (
    add_generation,
    change_generation,
    change_instance,
    remove_extension_runs,
    save_failure,
    save_hook_failure,
)

NewIdentity = Callable[[Connection, str, int], Identity]  # (transaction, instance name, ordinal)


def save_renewed(
    connection: Connection, before: Instance, after: Instance, *, now: datetime
) -> None:
    """Write down what the planner made of an instance that gets another model."""
    current = after.current
    save_hook_failure(connection, after.name, after.hook_failure)
    if after.generation != before.generation:
        add_generation(
            connection,
            after.name,
            number=current.number,
            image_version=current.image_version,
            image_digest=current.image_digest,
            model_revision=current.model_revision,
            now=now,
        )
        # The new OS disk runs its custom data anyway; an older wish to run it again is fulfilled.
        change_instance(connection, after.name, rerun_custom_data_asked_at=None)
        return
    kept = {run.name for run in current.extensions}
    forgotten = [run.name for run in before.current.extensions if run.name not in kept]
    remove_extension_runs(connection, after.name, current.number, extensions=forgotten)
    save_failure(connection, after.name, current.number, None)
    change_generation(
        connection,
        after.name,
        current.number,
        model_revision=current.model_revision,
        prepared=current.prepared,
        evidence_at=None,
    )
    change_instance(connection, after.name, restart_asked_at=after.restart_asked_at)


def withdraw_renewal(
    connection: Connection, scale_set: ScaleSet, name: str, *, now: datetime
) -> None:
    """Give an instance back what it had before its batch; it was not stopped."""
    before = next(i for i in scale_set.instances if i.name == name)
    after = withdraw(before, find_member(scale_set, name), now)
    change_instance(
        connection, name, generation=after.generation, restart_asked_at=after.restart_asked_at
    )
    for old, new in zip(before.generations, after.generations, strict=True):
        if old != new:
            change_generation(
                connection,
                name,
                new.number,
                model_revision=new.model_revision,
                prepared=new.prepared,
                evidence_at=new.evidence_at,
            )
