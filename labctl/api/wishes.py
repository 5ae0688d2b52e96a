"""Operations on scale sets and their instances, recorded with the wish that they wait for."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.controller.set_operations import AT_ONCE, MADE_AT
from labctl.store.operations import (
    Operation,
    OperationStatus,
    add_operation,
    end_operation,
    find_operation,
)
from labctl.store.scale_sets import find_scale_set

Json = Any  # what json.loads gives


def add_open(
    connection: Connection,
    kind: str,
    *,
    resource: str,
    scale_set: str,
    method: str,
    who: str,
    now: datetime,
    goal: Mapping[str, Json] | None = None,
) -> Operation:
    """Record what is waited for; `method` decides what the monitor answers in the end."""
    row = find_scale_set(connection, scale_set)
    made_at = None if row is None else row.created_at.isoformat()
    return add_operation(
        connection,
        kind=kind,
        resource=resource,
        scale_set=scale_set,
        goal={**(goal or {}), "method": method, MADE_AT: made_at},
        who=who,
        now=now,
    )


def add_ended(
    connection: Connection,
    *,
    resource: str,
    scale_set: str,
    method: str,
    who: str,
    now: datetime,
) -> Operation:
    """The same for what is in force as soon as it is written down.

    A client that is given an operation does not judge a success by the state of the resource,
    which may be a failure from before.
    """
    added = add_open(
        connection,
        AT_ONCE,
        resource=resource,
        scale_set=scale_set,
        method=method,
        who=who,
        now=now,
    )
    end_operation(connection, added.id, OperationStatus.SUCCEEDED, now=now)
    return find_operation(connection, added.id) or added
