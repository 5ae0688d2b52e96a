"""The history of everything: one row for each thing that was asked, decided, done or noticed."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from labctl.model.event import Event, EventKind
from labctl.model.notification import Topic
from labctl.store.schema import event


def add_event(
    connection: Connection,
    *,
    at: datetime,
    scale_set: str,
    kind: EventKind,
    message: str,
    instance: str | None = None,
    upgrade: int | None = None,
    detail: str = "",
    topic: Topic | None = None,
) -> None:
    """Append one event in the running transaction."""
    connection.execute(
        insert(event).values(
            at=at,
            scale_set=scale_set,
            instance=instance,
            upgrade=upgrade,
            kind=kind.value,
            message=message,
            data=json.dumps(
                ({"detail": detail} if detail else {}) | ({"topic": topic.value} if topic else {})
            ),
        )
    )


def load_events(
    connection: Connection,
    *,
    after: int = 0,
    scale_set: str | None = None,
    instance: str | None = None,
    upgrade: int | None = None,
    limit: int | None = None,
    first: int | None = None,
) -> list[Event]:
    """Events with an id above `after`, oldest first.

    With `limit` the newest that many, with `first` the oldest that many.
    """
    query = select(event).where(event.c.id > after)
    if scale_set is not None:
        query = query.where(event.c.scale_set == scale_set)
    if instance is not None:
        query = query.where(event.c.instance == instance)
    if upgrade is not None:
        query = query.where(event.c.upgrade == upgrade)
    if first is not None:
        rows = list(connection.execute(query.order_by(event.c.id).limit(first)).all())
    elif limit is not None:
        query = query.order_by(event.c.id.desc()).limit(limit)
        rows = list(reversed(connection.execute(query).all()))
    else:
        rows = list(connection.execute(query.order_by(event.c.id)).all())
    return [_read(row) for row in rows]


def _read(row: Row[Any]) -> Event:
    data = json.loads(row.data)
    return Event(
        id=row.id,
        at=row.at,
        scale_set=row.scale_set,
        instance=row.instance,
        upgrade=row.upgrade,
        kind=EventKind(row.kind),
        message=row.message,
        detail=data.get("detail", ""),
        topic=data.get("topic", row.kind),  # each kind is a topic, too
    )


def find_last_event_id(connection: Connection) -> int:
    """The id of the newest event; 0 when there is none."""
    return connection.execute(select(func.max(event.c.id))).scalar() or 0
