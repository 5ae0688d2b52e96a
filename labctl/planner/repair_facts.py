"""What becomes of the facts of an instance by a repair; part of `foresight.py`."""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from labctl.model.instance import (
    Generation,
    Instance,
    Wanted,
)
from labctl.model.instance_policy import RepairAction


def begin_repair(instance: Instance, action: RepairAction, now: datetime) -> Instance:
    """The instance once its repair is decided."""
    match action:
        case RepairAction.RESTART:
            return replace(instance, restart_asked_at=now)
        case RepairAction.REIMAGE:
            return reimage(instance)
        case RepairAction.REPLACE:
            return replace(instance, wanted=Wanted.DELETED)
        case _:
            assert_never(action)


def reimage(instance: Instance) -> Instance:
    """The instance with the wish for a fresh OS disk of the same image version and model."""
    current = instance.current
    fresh = Generation(
        number=max(g.number for g in instance.generations) + 1,
        image_version=current.image_version,
        image_digest=current.image_digest,
        model_revision=current.model_revision,
        prepared=False,
    )
    return replace(
        instance,
        generation=fresh.number,
        generations=(*instance.generations, fresh),
        restart_asked_at=None,
        rerun_custom_data_asked_at=None,
        hook_failure=None,
    )
