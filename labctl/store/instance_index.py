"""Which instances a scale set has, without what is kept of each."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from labctl.model.instance import Wanted
from labctl.store.schema import instance


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceKey:
    """One instance by name."""

    name: str
    ordinal: int
    uuid: str
    created_at: datetime
    is_leaving: bool  # it is being deleted


def load_instance_keys(
    connection: Connection, scale_set: str, *, ordinal: int | None = None
) -> list[InstanceKey]:
    """All instances of a scale set by ordinal, or the one with this ordinal."""
    columns = instance.c
    query = (
        select(columns.name, columns.ordinal, columns.uuid, columns.created_at, columns.wanted)
        .where(columns.scale_set == scale_set)
        .order_by(columns.ordinal)
    )
    if ordinal is not None:
        query = query.where(columns.ordinal == ordinal)
    return [
        InstanceKey(
            name=row.name,
            ordinal=row.ordinal,
            uuid=row.uuid,
            created_at=row.created_at,
            is_leaving=row.wanted == Wanted.DELETED.value,
        )
        for row in connection.execute(query)
    ]


def count_instances(connection: Connection, scale_set: str) -> int:
    """How many there are that are not being deleted."""
    query = select(func.count()).where(
        instance.c.scale_set == scale_set, instance.c.wanted != Wanted.DELETED.value
    )
    return int(connection.execute(query).scalar_one())
