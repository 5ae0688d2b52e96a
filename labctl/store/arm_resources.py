"""What Azure's clients have made: resources that only the API has, and what it keeps beside ours.

The document of a scale set holds only what the spec has no place for; the spec itself counts.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from labctl.store.schema import arm_resource

Json = Any  # what json.loads gives

_SCALE_SET = "Microsoft.Compute/virtualMachineScaleSets"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResource:
    """One resource, as its client wrote it."""

    id: str  # in the case in which it was made
    type: str  # "Microsoft.Network/loadBalancers"
    group: str | None  # the key (lower case) of its resource group
    name: str
    document: dict[str, Json]  # without id, name and type
    created_at: datetime
    changed_at: datetime

    @property
    def key(self) -> str:
        """Equal for ids that mean the same."""
        return self.id.lower()


def find_resource(connection: Connection, identifier: str) -> ArmResource | None:
    """The resource with this id, in any case."""
    query = select(arm_resource).where(arm_resource.c.key == identifier.lower())
    row = connection.execute(query).first()
    return None if row is None else _read(row)


def load_resources(
    connection: Connection,
    *,
    type: str | None = None,  # noqa: A002 - the field's word
    group: str | None = None,
    below: str | None = None,
) -> list[ArmResource]:
    """Resources by id: of a type, of a resource group, below (not beside) a parent's id."""
    query = select(arm_resource).order_by(arm_resource.c.key)
    if type is not None:
        query = query.where(arm_resource.c.type_key == type.lower())
    if group is not None:
        query = query.where(arm_resource.c.group_key == group.lower())
    found = [_read(row) for row in connection.execute(query)]
    return [each for each in found if below is None or each.key.startswith(f"{below.lower()}/")]


def save_resource(
    connection: Connection,
    identifier: str,
    *,
    type: str,  # noqa: A002 - the field's word
    group: str | None,
    name: str,
    document: dict[str, Json],
    now: datetime,
) -> bool:
    """Write a resource; returns whether it is new. The id keeps the case in which it was made."""
    values: dict[str, Any] = {"document": json.dumps(document), "changed_at": now}
    key = identifier.lower()
    changed = connection.execute(
        update(arm_resource).where(arm_resource.c.key == key).values(**values)
    )
    if changed.rowcount:
        return False
    connection.execute(
        insert(arm_resource).values(
            key=key,
            id=identifier,
            type=type,
            type_key=type.lower(),
            group_key=None if group is None else group.lower(),
            name=name,
            created_at=now,
            **values,
        )
    )
    return True


def remove_resource(connection: Connection, identifier: str) -> bool:
    """Forget a resource and what is part of it; returns whether it was there."""
    key = identifier.lower()
    parts = arm_resource.c.key.startswith(f"{key}/", autoescape=True)
    removed = connection.execute(delete(arm_resource).where((arm_resource.c.key == key) | parts))
    return bool(removed.rowcount)


def forget_scale_set(connection: Connection, name: str) -> None:
    """Forget what only Azure's clients knew of a scale set, in whichever resource group."""
    for each in load_resources(connection, type=_SCALE_SET):
        if each.name.lower() == name:
            remove_resource(connection, each.id)


def _read(row: Row[Any]) -> ArmResource:
    return ArmResource(
        id=row.id,
        type=row.type,
        group=row.group_key,
        name=row.name,
        document=json.loads(row.document),
        created_at=row.created_at,
        changed_at=row.changed_at,
    )
