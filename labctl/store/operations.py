"""Long-running operations of the API: what is waited for, and how it ended."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, delete, insert, select, update

from labctl.store.schema import operation

Json = Any  # what json.loads gives


class OperationStatus(StrEnum):
    """The words that Azure's clients wait for."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One long-running operation. It is ended by what is seen, so a restart loses nothing."""

    id: str  # a UUID
    kind: str  # what is waited for, see `controller/operations.py`
    resource: str  # the id of the resource that it concerns
    scale_set: str | None  # the one whose facts decide, if one does
    goal: dict[str, Json]  # what the kind needs to know: instances, the number of an upgrade, ...
    who: str  # the name of the token
    status: OperationStatus
    started_at: datetime
    ended_at: datetime | None
    error: dict[str, Json] | None  # in ARM's shape
    result: dict[str, Json] | None  # for kinds that have one

    @property
    def is_open(self) -> bool:
        """Is it still waited for?"""
        return self.status is OperationStatus.IN_PROGRESS


def add_operation(
    connection: Connection,
    *,
    kind: str,
    resource: str,
    scale_set: str | None = None,
    goal: dict[str, Json] | None = None,
    who: str,
    now: datetime,
) -> Operation:
    """Record that something was asked for and is waited for, in the transaction of the wish."""
    identifier = str(uuid4())
    connection.execute(
        insert(operation).values(
            id=identifier,
            kind=kind,
            resource=resource,
            resource_key=resource.lower(),
            scale_set=scale_set,
            goal=json.dumps(goal or {}),
            who=who,
            status=OperationStatus.IN_PROGRESS.value,
            started_at=now,
        )
    )
    found = find_operation(connection, identifier)
    if found is None:
        raise LookupError(f"operation {identifier} is gone")
    return found


def find_operation(connection: Connection, identifier: str) -> Operation | None:
    """The operation with this id."""
    query = select(operation).where(operation.c.id == identifier.lower())
    row = connection.execute(query).first()
    return None if row is None else _read(row)


def load_open_operations(
    connection: Connection, *, scale_set: str | None = None, resource: str | None = None
) -> list[Operation]:
    """What is still waited for, oldest first: of a scale set, of a resource, or all."""
    query = (
        select(operation)
        .where(operation.c.status == OperationStatus.IN_PROGRESS.value)
        .order_by(operation.c.started_at, operation.c.id)
    )
    if scale_set is not None:
        query = query.where(operation.c.scale_set == scale_set)
    if resource is not None:
        query = query.where(operation.c.resource_key == resource.lower())
    return [_read(row) for row in connection.execute(query)]


def find_last_operation(connection: Connection, resource: str) -> Operation | None:
    """The newest operation on a resource, open or not."""
    query = (
        select(operation)
        .where(operation.c.resource_key == resource.lower())
        .order_by(operation.c.started_at.desc(), operation.c.id)
    )
    row = connection.execute(query).first()
    return None if row is None else _read(row)


def find_last_of_kind(
    connection: Connection, scale_set: str, kind: str, *, since: datetime
) -> Operation | None:
    """The newest operation of a kind on a scale set, open or not, begun at `since` or later."""
    query = (
        select(operation)
        .where(
            operation.c.scale_set == scale_set,
            operation.c.kind == kind,
            operation.c.started_at >= since,
        )
        .order_by(operation.c.started_at.desc(), operation.c.id)
    )
    row = connection.execute(query).first()
    return None if row is None else _read(row)


def change_goal(
    connection: Connection, identifier: str, goal: dict[str, Json], *, kind: str | None = None
) -> None:
    """Write down what is known by now of what is waited for; `kind`: and by which step."""
    values = {"goal": json.dumps(goal)} | ({} if kind is None else {"kind": kind})
    connection.execute(update(operation).where(operation.c.id == identifier).values(**values))


def end_operation(
    connection: Connection,
    identifier: str,
    status: OperationStatus,
    *,
    now: datetime,
    error: dict[str, Json] | None = None,
    result: dict[str, Json] | None = None,
) -> bool:
    """Write down how it ended; False: it had ended already, and stays as it ended."""
    ended = connection.execute(
        update(operation)
        .where(
            operation.c.id == identifier,
            operation.c.status == OperationStatus.IN_PROGRESS.value,
        )
        .values(
            status=status.value,
            ended_at=now,
            error=None if error is None else json.dumps(error),
            result=None if result is None else json.dumps(result),
        )
    )
    return bool(ended.rowcount)


def remove_operations(connection: Connection, *, ended_before: datetime) -> int:
    """Forget operations that ended long ago; returns how many."""
    removed = connection.execute(delete(operation).where(operation.c.ended_at < ended_before))
    return removed.rowcount


def _read(row: Row[Any]) -> Operation:
    return Operation(
        id=row.id,
        kind=row.kind,
        resource=row.resource,
        scale_set=row.scale_set,
        goal=json.loads(row.goal),
        who=row.who,
        status=OperationStatus(row.status),
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=None if row.error is None else json.loads(row.error),
        result=None if row.result is None else json.loads(row.result),
    )
