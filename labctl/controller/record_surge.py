"""Writes into the store that a new instance comes for one of the batch (maxSurge)."""

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from labctl.model.event import EventKind
from labctl.model.instance import Identity, Instance
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import MemberState, Upgrade
from labctl.planner.surge import make_successor
from labctl.store.events import add_event
from labctl.store.instances import add_generation, change_instance, insert_instance
from labctl.store.upgrades import change_member

# The member when its successor was given up before it was switched on, as before its batch.
NOT_ADMITTED: Mapping[str, object] = dict.fromkeys(
    ("batch", "replaced_by", "from_generation", "to_generation", "admitted_at")
)


def insert_successor(
    connection: Connection,
    scale_set: ScaleSet,
    upgrade: Upgrade,
    instance: Instance,
    *,
    ordinal: int,
    batch: int,
    now: datetime,
    new_identity: Callable[[Connection, str, int], Identity],
) -> None:
    """Create the new instance, and let the member of the old one know of it."""
    new = make_successor(scale_set, ordinal, now)
    insert_instance(
        connection,
        scale_set=scale_set.name,
        ordinal=ordinal,
        name=new.name,
        identity=new_identity(connection, new.name, ordinal),
        now=now,
    )
    change_instance(connection, new.name, out_of_service_since=new.out_of_service_since)
    add_generation(
        connection,
        new.name,
        number=new.generation,
        image_version=new.current.image_version,
        image_digest=new.current.image_digest,
        model_revision=new.current.model_revision,
        now=now,
    )
    change_member(
        connection,
        upgrade.id,
        instance.name,
        state=MemberState.IN_PROGRESS.value,
        batch=batch,
        replaced_by=new.name,
        from_generation=instance.generation,
        to_generation=new.generation,
        from_version=instance.current.image_version,
        admitted_at=now,
    )
    add_event(
        connection,
        at=now,
        scale_set=scale_set.name,
        instance=new.name,
        upgrade=upgrade.id,
        kind=EventKind.DECISION,
        message=f"created, comes for {instance.name}, which is deleted once this one is healthy",
    )
