"""Upgrades: the one that runs and the history."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from labctl.errors import NotFoundError
from labctl.model.control import NO_CONTROL, UpgradeControl
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    Upgrade,
    UpgradeCode,
    UpgradeError,
    UpgradeErrorCode,
    UpgradePurpose,
)
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.store.schema import member, upgrade

_RUNNING = tuple(code.value for code in UpgradeCode if not code.is_final)


def insert_upgrade(
    connection: Connection,
    *,
    scale_set: str,
    started_by: StartedBy,
    target_version: str,
    target_digest: str,
    model_revision: int,
    policy: RollingUpgradePolicy,
    health_timeout: timedelta,
    restores: bool,
    members: tuple[Member, ...],
    now: datetime,
    purpose: UpgradePurpose = UpgradePurpose.OS_IMAGE,
    ignores_windows: bool = False,
    control: UpgradeControl = NO_CONTROL,
) -> int:
    """Record a new upgrade with its members; returns its id."""
    result = connection.execute(
        insert(upgrade).values(
            scale_set=scale_set,
            started_by=started_by.value,
            target_version=target_version,
            target_digest=target_digest,
            model_revision=model_revision,
            policy=policy.model_dump_json(),
            health_timeout=round(health_timeout.total_seconds() * 1000),
            restores=restores,
            code=UpgradeCode.ROLLING_FORWARD.value,
            started_at=now,
            batches=0,
            purpose=purpose.value,
            ignores_windows=ignores_windows,
            control=control.model_dump_json(),
        )
    )
    key = result.inserted_primary_key
    if key is None:
        raise RuntimeError("the store gave no id for a new upgrade")
    for entry in members:
        insert_member(connection, key[0], entry)
    return int(key[0])


def insert_member(connection: Connection, upgrade_id: int, entry: Member) -> None:
    """Add an instance to an upgrade; one that was deleted and made again begins anew."""
    connection.execute(
        delete(member).where(member.c.upgrade == upgrade_id, member.c.instance == entry.instance)
    )
    connection.execute(
        insert(member).values(
            upgrade=upgrade_id,
            instance=entry.instance,
            ordinal=entry.ordinal,
            state=entry.state.value,
            from_version=entry.from_version,
            phase=entry.phase,
            skips_upgrade=entry.skips_upgrade,
            message=entry.message,
        )
    )


def change_upgrade(connection: Connection, upgrade_id: int, **values: object) -> None:
    """Set columns of an upgrade."""
    connection.execute(update(upgrade).where(upgrade.c.id == upgrade_id).values(**values))


def change_member(connection: Connection, upgrade_id: int, name: str, **values: object) -> None:
    """Set columns of a member."""
    connection.execute(
        update(member)
        .where(member.c.upgrade == upgrade_id, member.c.instance == name)
        .values(**values)
    )


def find_running_upgrade(connection: Connection, scale_set: str) -> Upgrade | None:
    """The upgrade of a scale set that has not ended."""
    row = connection.execute(
        select(upgrade).where(upgrade.c.scale_set == scale_set, upgrade.c.code.in_(_RUNNING))
    ).first()
    return None if row is None else _read_upgrade(connection, row)


def load_upgrade(connection: Connection, upgrade_id: int) -> Upgrade:
    """Raises NotFoundError."""
    row = connection.execute(select(upgrade).where(upgrade.c.id == upgrade_id)).first()
    if row is None:
        raise NotFoundError(
            f"upgrade {upgrade_id} does not exist", hint="run: labctl upgrade history SCALE_SET"
        )
    return _read_upgrade(connection, row)


def find_upgrade(connection: Connection, upgrade_id: int) -> Upgrade | None:
    """The upgrade with this id, if there is one."""
    row = connection.execute(select(upgrade).where(upgrade.c.id == upgrade_id)).first()
    return None if row is None else _read_upgrade(connection, row)


def load_upgrades(
    connection: Connection,
    scale_set: str,
    *,
    since: datetime | None = None,
    target_digest: str | None = None,
    model_revision: int | None = None,
    limit: int | None = None,
) -> list[Upgrade]:
    """Upgrades of a scale set, newest first; None does not restrict them."""
    query = select(upgrade).where(upgrade.c.scale_set == scale_set).order_by(upgrade.c.id.desc())
    if target_digest is not None:
        query = query.where(upgrade.c.target_digest == target_digest)
    if model_revision is not None:
        query = query.where(upgrade.c.model_revision == model_revision)
    if since is not None:
        query = query.where(upgrade.c.started_at >= since)
    if limit is not None:
        query = query.limit(limit)
    return [_read_upgrade(connection, row) for row in connection.execute(query).all()]


def count_upgrades(connection: Connection) -> dict[tuple[str, str], int]:
    """How many there are, by scale set and code."""
    rows = connection.execute(
        select(upgrade.c.scale_set, upgrade.c.code, func.count()).group_by(
            upgrade.c.scale_set, upgrade.c.code
        )
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _read_upgrade(connection: Connection, row: Row[Any]) -> Upgrade:
    entries = connection.execute(
        select(member).where(member.c.upgrade == row.id).order_by(member.c.ordinal)
    )
    error = None
    if row.error_code is not None:
        error = UpgradeError(code=UpgradeErrorCode(row.error_code), message=row.error_message)
    return Upgrade(
        id=row.id,
        scale_set=row.scale_set,
        started_by=StartedBy(row.started_by),
        target_version=row.target_version,
        target_digest=row.target_digest,
        model_revision=row.model_revision,
        purpose=UpgradePurpose(row.purpose),
        policy=RollingUpgradePolicy.model_validate_json(row.policy),
        health_timeout=timedelta(milliseconds=row.health_timeout),
        restores=row.restores,
        code=UpgradeCode(row.code),
        started_at=row.started_at,
        ended_at=row.ended_at,
        control=UpgradeControl.model_validate_json(row.control),
        approval_asked_at=row.approval_asked_at,
        approved_batch=row.approved_batch,
        cancel_asked_at=row.cancel_asked_at,
        cancel_reason=row.cancel_reason,
        end_reason=row.end_reason,
        paused_at=row.paused_at,
        ignores_windows=row.ignores_windows,
        batch_ended_at=row.batch_ended_at,
        batches=row.batches,
        members=tuple(
            Member(
                instance=entry.instance,
                ordinal=entry.ordinal,
                state=MemberState(entry.state),
                batch=entry.batch,
                from_generation=entry.from_generation,
                to_generation=entry.to_generation,
                from_version=entry.from_version,
                from_model=entry.from_model,
                phase=entry.phase,
                skips_upgrade=entry.skips_upgrade,
                admitted_at=entry.admitted_at,
                stopped_at=entry.stopped_at,
                settled_at=entry.settled_at,
                healthy_at=entry.healthy_at,
                ended_at=entry.ended_at,
                message=entry.message,
                replaced_by=entry.replaced_by,
            )
            for entry in entries
        ),
        error=error,
    )
