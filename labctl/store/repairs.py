"""Automatic repairs: the open ones, the history, and whether the service is suspended."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from labctl.model.instance_policy import RepairAction
from labctl.model.repair import Repair, RepairOutcome
from labctl.store.schema import repair, scale_set

# More than can count: 50 at once (5 % of 1000), three tries each, and the latest ten.
_KEPT_IN_VIEW = 200


def insert_repair(
    connection: Connection,
    *,
    scale_set: str,
    instance: str,
    ordinal: int,
    action: RepairAction,
    reason: str,
    now: datetime,
) -> int:
    """Record a repair that begins; returns its id."""
    result = connection.execute(
        insert(repair).values(
            scale_set=scale_set,
            instance=instance,
            ordinal=ordinal,
            action=action.value,
            began_at=now,
            reason=reason,
            message="",
        )
    )
    key = result.inserted_primary_key
    if key is None:
        raise RuntimeError("the store gave no id for a new repair")
    return int(key[0])


def end_repair(
    connection: Connection, repair_id: int, outcome: RepairOutcome, message: str, *, now: datetime
) -> None:
    """Record how a repair ended."""
    connection.execute(
        update(repair)
        .where(repair.c.id == repair_id)
        .values(ended_at=now, outcome=outcome.value, message=message)
    )


def load_recent_repairs(
    connection: Connection, scale_set: str, *, since: datetime
) -> tuple[Repair, ...]:
    """What bears on the next decision, oldest first."""
    query = (
        select(repair)
        .where(repair.c.scale_set == scale_set, repair.c.began_at >= since)
        .order_by(repair.c.ended_at.is_not(None), repair.c.id.desc())
        .limit(_KEPT_IN_VIEW)
    )
    found = [_read(row) for row in connection.execute(query)]
    return tuple(sorted(found, key=lambda each: each.id))


def load_repairs(
    connection: Connection, scale_set: str, *, limit: int | None = None
) -> list[Repair]:
    """The history of a scale set, newest first; also of an earlier one of that name."""
    query = select(repair).where(repair.c.scale_set == scale_set).order_by(repair.c.id.desc())
    if limit is not None:
        query = query.limit(limit)
    return [_read(row) for row in connection.execute(query)]


def count_repairs(connection: Connection) -> dict[tuple[str, str, str], int]:
    """How many have ended, by scale set, action and outcome."""
    keys = (repair.c.scale_set, repair.c.action, repair.c.outcome)
    query = select(*keys, func.count()).where(repair.c.outcome.is_not(None)).group_by(*keys)
    return {(row[0], row[1], row[2]): row[3] for row in connection.execute(query)}


def save_suspension(
    connection: Connection, name: str, *, reason: str | None, now: datetime
) -> None:
    """Suspend the repairs of a scale set for `reason`; None resumes them."""
    values = (
        {"repairs_suspended_at": None, "repairs_suspended_reason": "", "repairs_resumed_at": now}
        if reason is None
        else {"repairs_suspended_at": now, "repairs_suspended_reason": reason}
    )
    connection.execute(update(scale_set).where(scale_set.c.name == name).values(**values))


def _read(row: Row[Any]) -> Repair:
    return Repair(
        id=row.id,
        instance=row.instance,
        ordinal=row.ordinal,
        action=RepairAction(row.action),
        began_at=row.began_at,
        reason=row.reason,
        ended_at=row.ended_at,
        outcome=None if row.outcome is None else RepairOutcome(row.outcome),
        message=row.message,
    )
