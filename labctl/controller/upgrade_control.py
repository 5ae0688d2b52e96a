"""What a user may ask of a running upgrade beside cancelling it; desired state."""

from datetime import datetime

from sqlalchemy import Connection

from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.model.notification import Topic
from labctl.model.upgrade import Upgrade
from labctl.planner import find_approval
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
    # The time for an approval begins anew: nobody had to answer in the pause.
    change_upgrade(connection, running.id, paused_at=None, approval_asked_at=None)
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


def approve_batch(
    connection: Connection,
    scale_set: str,
    *,
    now: datetime,
    by: str = "",
    asked: tuple[int, int] | None = None,
    reason: str = "",
) -> tuple[int, int]:
    """Let the batch begin that waits for approval; returns upgrade and batch.

    `by` is who decided, where that is no person; `asked` the upgrade and batch that were meant.
    Raises NotFoundError as pause does, RefusedError when nothing waits, or another batch.
    """
    running = _require_asking(connection, scale_set, asked)
    batch = running.batches + 1
    change_upgrade(connection, running.id, approved_batch=batch)
    message = f"batch {batch} of upgrade {running.id} approved" + (f" by {by}" if by else "")
    message += f": {reason}" if reason else ""
    note(connection, running, message, now=now, topic=Topic.APPROVAL_ANSWERED)
    return running.id, batch


def reject_batch(
    connection: Connection,
    scale_set: str,
    *,
    reason: str,
    now: datetime,
    by: str = "",
    asked: tuple[int, int] | None = None,
) -> int:
    """End the upgrade whose batch waits for approval; returns its id. Raises as approve does."""
    running = _require_asking(connection, scale_set, asked)
    batch = running.batches + 1
    why = f"batch {batch} was rejected" + (f" by {by}" if by else "")
    why += f": {reason}" if reason else ""
    change_upgrade(connection, running.id, cancel_asked_at=now, cancel_reason=why)
    note(
        connection,
        running,
        f"upgrade {running.id}: {why}",
        now=now,
        topic=Topic.APPROVAL_ANSWERED,
    )
    return running.id


def _require_asking(
    connection: Connection, scale_set: str, asked: tuple[int, int] | None
) -> Upgrade:
    running = require_running(connection, scale_set)
    is_meant = asked is None or asked == (running.id, running.batches + 1)
    is_asking = (
        is_meant and running.approval_asked_at is not None and find_approval(running) is not None
    )
    if not is_asking or running.cancel_asked_at is not None:
        raise RefusedError(
            f"no batch of upgrade {running.id} of {scale_set!r} waits for approval",
            detail="an approval is asked for when all else lets the batch begin",
            hint=f"run: labctl upgrade status {scale_set}; to stop the upgrade: "
            f"labctl upgrade cancel {scale_set}",
        )
    return running


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


def note(
    connection: Connection,
    upgrade: Upgrade,
    message: str,
    *,
    now: datetime,
    topic: Topic | None = None,
) -> None:
    """Leave an event; a daemon is woken by it."""
    add_event(
        connection,
        at=now,
        scale_set=upgrade.scale_set,
        upgrade=upgrade.id,
        kind=EventKind.REQUEST,
        message=message,
        topic=topic,
    )
