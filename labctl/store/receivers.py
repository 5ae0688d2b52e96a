"""Receivers of notifications, and how far each has been told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from labctl.model.notification import Notification
from labctl.store.events import find_last_event_id
from labctl.store.schema import receiver, scale_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver of what happens to one scale set."""

    scale_set: str
    spec: Notification
    told: int  # the last event that it was told, or did not want
    told_at: datetime | None
    failures: int  # in a row
    failed_at: datetime | None
    error: str

    @property
    def key(self) -> tuple[str, str]:
        """What names it."""
        return (self.scale_set, self.spec.name)


def save_receivers(connection: Connection, name: str, specs: Sequence[Notification]) -> None:
    """Let these be the receivers of a scale set. New ones are told what happens from now on."""
    known = {each.spec.name: each for each in load_receivers(connection, name)}
    for gone in set(known) - {spec.name for spec in specs}:
        remove_receiver(connection, (name, gone))
    for spec in specs:
        if spec.name in known:
            _change(connection, (name, spec.name), spec=spec.model_dump_json())
            continue
        connection.execute(
            insert(receiver).values(
                scale_set=name,
                name=spec.name,
                spec=spec.model_dump_json(),
                told=find_last_event_id(connection),
                failures=0,
                error="",
            )
        )


def load_receivers(connection: Connection, name: str | None = None) -> list[Receiver]:
    """The receivers of a scale set, or all of them; also of sets that are gone."""
    query = select(receiver).order_by(receiver.c.scale_set, receiver.c.name)
    if name is not None:
        query = query.where(receiver.c.scale_set == name)
    return [_read(row) for row in connection.execute(query)]


def has_receivers(connection: Connection) -> bool:
    """Is there anybody to tell anything?"""
    return connection.execute(select(receiver.c.name).limit(1)).first() is not None


def save_told(connection: Connection, key: tuple[str, str], told: int, *, now: datetime) -> None:
    """Record that a receiver was told all up to this event."""
    _change(connection, key, told=told, told_at=now, failures=0, failed_at=None, error="")


def save_passed(connection: Connection, key: tuple[str, str], told: int) -> None:
    """Record that a receiver wants nothing of what came up to this event."""
    _change(connection, key, told=told)


def save_untold(
    connection: Connection, key: tuple[str, str], error: str, *, failures: int, now: datetime
) -> None:
    """Record that a receiver could not be told."""
    _change(connection, key, failures=failures, failed_at=now, error=error)


def remove_receiver(connection: Connection, key: tuple[str, str]) -> None:
    """Tell it nothing more."""
    connection.execute(
        delete(receiver).where(receiver.c.scale_set == key[0], receiver.c.name == key[1])
    )


def remove_finished(connection: Connection, key: tuple[str, str]) -> None:
    """Forget a receiver that was told everything of a scale set that is gone."""
    is_there = select(scale_set.c.name).where(scale_set.c.name == key[0]).exists()
    connection.execute(
        delete(receiver).where(receiver.c.scale_set == key[0], receiver.c.name == key[1], ~is_there)
    )


def _change(connection: Connection, key: tuple[str, str], **values: object) -> None:
    connection.execute(
        update(receiver)
        .where(receiver.c.scale_set == key[0], receiver.c.name == key[1])
        .values(**values)
    )


def _read(row: Row[Any]) -> Receiver:
    return Receiver(
        scale_set=row.scale_set,
        spec=Notification.model_validate_json(row.spec),
        told=row.told,
        told_at=row.told_at,
        failures=row.failures,
        failed_at=row.failed_at,
        error=row.error,
    )
