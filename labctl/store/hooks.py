"""What hooks did and said: one row for each run."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from labctl.model.hook import HookKind
from labctl.store.schema import hook_run

MAX_OUTPUT = 64 * 1024  # characters that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun:
    """One run of a hook for one instance."""

    id: int
    instance: str
    upgrade: int | None
    kind: HookKind
    reason: str
    started_at: datetime
    finished_at: datetime | None  # None: running, or the controller died meanwhile
    exit_code: int | None  # None with finished_at: timed out, or it could not be run
    has_failed: bool
    message: str
    output: str


def begin_hook_run(
    connection: Connection,
    *,
    scale_set: str,
    instance: str,
    created_at: datetime,
    upgrade: int | None,
    kind: HookKind,
    reason: str,
    now: datetime,
) -> HookRun:
    """Record a run, or take up the one that a dead controller has begun for the same errand."""
    query = (
        select(hook_run)
        .where(
            hook_run.c.instance == instance,
            hook_run.c.kind == kind.value,
            hook_run.c.finished_at.is_(None),
            hook_run.c.reason == reason,
            hook_run.c.started_at >= created_at,  # of this instance, not of one of the same name
        )
        .order_by(hook_run.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        result = connection.execute(
            insert(hook_run).values(
                scale_set=scale_set,
                instance=instance,
                upgrade=upgrade,
                kind=kind.value,
                reason=reason,
                started_at=now,
                has_failed=False,
                message="",
                output="",
            )
        )
        key = result.inserted_primary_key
        if key is None:
            raise RuntimeError("the store gave no id for a new run of a hook")
        row = connection.execute(select(hook_run).where(hook_run.c.id == key[0])).one()
    return _read(row)


def end_hook_run(
    connection: Connection,
    run_id: int,
    *,
    exit_code: int | None,
    has_failed: bool,
    message: str,
    output: str,
    now: datetime,
) -> None:
    """Record how a run ended."""
    connection.execute(
        update(hook_run)
        .where(hook_run.c.id == run_id)
        .values(
            finished_at=now,
            exit_code=exit_code,
            has_failed=has_failed,
            message=message,
            output=output[-MAX_OUTPUT:],
        )
    )


def drop_hook_runs(connection: Connection, instance: str, *, now: datetime) -> None:
    """Take no run up again that a stop has cut off."""
    connection.execute(
        update(hook_run)
        .where(hook_run.c.instance == instance, hook_run.c.finished_at.is_(None))
        .values(finished_at=now, has_failed=True, message="cut off by a stop")
    )


def load_hook_runs(
    connection: Connection,
    *,
    upgrade: int | None = None,
    instance: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[HookRun]:
    """The runs of an upgrade or of an instance, oldest first; with `limit` the newest that many."""
    query = select(hook_run).order_by(hook_run.c.id.desc())
    if upgrade is not None:
        query = query.where(hook_run.c.upgrade == upgrade)
    if instance is not None:
        query = query.where(hook_run.c.instance == instance)
    if since is not None:
        query = query.where(hook_run.c.started_at >= since)
    if limit is not None:
        query = query.limit(limit)
    return [_read(row) for row in reversed(connection.execute(query).all())]


def _read(row: Row[Any]) -> HookRun:
    return HookRun(
        id=row.id,
        instance=row.instance,
        upgrade=row.upgrade,
        kind=HookKind(row.kind),
        reason=row.reason,
        started_at=row.started_at,
        finished_at=row.finished_at,
        exit_code=row.exit_code,
        has_failed=row.has_failed,
        message=row.message,
        output=row.output,
    )
