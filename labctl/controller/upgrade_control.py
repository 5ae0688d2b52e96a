"""What a user may ask of a running upgrade beside cancelling it; desired state."""

from datetime import datetime

from sqlalchemy import Connection

from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.model.upgrade import Upgrade
from labctl.store.events import add_event
from labctl.store.scale_sets import get_scale_set
from labctl.store.upgrades import change_upgrade, find_running_upgrade


def pause_upgrade(connection: Connection, scale_set: str, *, now: datetime) -> tuple[int, bool]:
    """Begin no further batch; returns the id, and whether that is new.

    Raises NotFoundError without such a scale set, RefusedError when no upgrade of it is running.
    """
    running = require_running(connection, scale_set)
    if running.cancel_asked_at is not None:
        raise RefusedError(
            f"upgrade {running.id} of {scale_set!r} is being cancelled",
            detail="it ends with its present batch; there is nothing to pause",
            hint=f"to begin again later: labctl upgrade start {scale_set}",
        )
    if running.paused_at is not None:
        return running.id, False
    change_upgrade(connection, running.id, paused_at=now)
    note(
        connection,
        running,
        f"pause of upgrade {running.id} asked for; the current batch finishes",
        now=now,
    )
    return running.id, True


def resume_upgrade(connection: Connection, scale_set: str, *, now: datetime) -> tuple[int, bool]:
    """Let a paused upgrade go on; returns the id, and whether it was paused. Raises as pause."""
    running = require_running(connection, scale_set)
    if running.paused_at is None:
        return running.id, False
    change_upgrade(connection, running.id, paused_at=None)
    note(connection, running, f"upgrade {running.id} resumed", now=now)
    return running.id, True


def ignore_windows(connection: Connection, scale_set: str, *, now: datetime) -> None:
    """Let the running upgrade begin batches outside of maintenance windows. Raises as pause."""
    running = require_running(connection, scale_set)
    if running.ignores_windows:
        return
    change_upgrade(connection, running.id, ignores_windows=True)
    message = f"upgrade {running.id} waits for maintenance windows no more"
    note(connection, running, message, now=now)


def require_running(connection: Connection, scale_set: str) -> Upgrade:
    """The running upgrade. Raises NotFoundError or RefusedError."""
    get_scale_set(connection, scale_set)
    running = find_running_upgrade(connection, scale_set)
    if running is None:
        raise RefusedError(
            f"no upgrade of {scale_set!r} is running",
            hint=f"run: labctl upgrade history {scale_set}",
        )
    return running


def note(connection: Connection, upgrade: Upgrade, message: str, *, now: datetime) -> None:
    """Leave an event; a daemon is woken by it."""
    add_event(
        connection,
        at=now,
        scale_set=upgrade.scale_set,
        upgrade=upgrade.id,
        kind=EventKind.REQUEST,
        message=message,
    )
