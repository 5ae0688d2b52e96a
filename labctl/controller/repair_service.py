"""Suspends and resumes automatic repairs."""

from datetime import datetime

from sqlalchemy import Connection

from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.store.events import add_event
from labctl.store.repairs import save_suspension
from labctl.store.scale_sets import get_scale_set, load_models


def suspend(connection: Connection, name: str, *, reason: str, now: datetime) -> bool:
    """Begin no further repair; False: they were suspended already. Raises RefusedError."""
    _require_enabled(connection, name)
    if get_scale_set(connection, name).repairs_suspended_at is not None:
        return False
    save_suspension(connection, name, reason=reason, now=now)
    _note(connection, name, f"automatic repairs suspended: {reason}", now=now)
    return True


def resume(connection: Connection, name: str, *, now: datetime) -> bool:
    """Repair again; what failed before counts no more. False: they were not suspended."""
    _require_enabled(connection, name)
    if get_scale_set(connection, name).repairs_suspended_at is None:
        return False
    save_suspension(connection, name, reason=None, now=now)
    _note(connection, name, "automatic repairs resumed", now=now)
    return True


def _require_enabled(connection: Connection, name: str) -> None:
    row = get_scale_set(connection, name)
    spec = load_models(connection, name)[row.model_revision]
    if not spec.automatic_repairs_policy.enabled:
        raise RefusedError(
            f"automatic repairs of {name!r} are not enabled",
            hint="set automaticRepairsPolicy.enabled: true in the spec, then: labctl apply",
        )


def _note(connection: Connection, name: str, message: str, *, now: datetime) -> None:
    add_event(connection, at=now, scale_set=name, kind=EventKind.REQUEST, message=message)
