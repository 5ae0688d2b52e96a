"""Writes into the store that an instance goes back to the OS disk from before the upgrade."""

from datetime import datetime

from sqlalchemy import Connection

from labctl.model.event import EventKind
from labctl.model.instance import HealthState
from labctl.model.plan import BeginRollback, ScaleSet
from labctl.model.upgrade import MemberState, Upgrade, UpgradeCode
from labctl.store.events import add_event
from labctl.store.instances import change_generation, change_instance, save_failure
from labctl.store.upgrades import change_member, change_upgrade


def begin_rollback(
    connection: Connection, scale_set: ScaleSet, decision: BeginRollback, *, now: datetime
) -> None:
    """Put what failed back, since a limit was exceeded; the upgrade only waits for it."""
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.id != decision.upgrade:
        raise RuntimeError(f"decision for upgrade {decision.upgrade}, which is not running")
    # The error is kept from here on: when those that failed are back, no limit is exceeded.
    change_upgrade(
        connection,
        upgrade.id,
        code=UpgradeCode.ROLLING_BACK.value,
        error_code=decision.error.code.value,
        error_message=decision.error.message,
    )
    add_event(
        connection,
        at=now,
        scale_set=scale_set.name,
        upgrade=upgrade.id,
        kind=EventKind.FAILURE,
        message=decision.reason,
    )
    for name in decision.instances:
        restore(connection, upgrade, name)
        change_member(
            connection,
            upgrade.id,
            name,
            state=MemberState.ROLLING_BACK.value,
            settled_at=None,
            ended_at=None,
        )


def restore(connection: Connection, upgrade: Upgrade, name: str) -> None:
    """Make the OS disk from before the upgrade the wanted one; it must prove itself anew."""
    member = next(member for member in upgrade.members if member.instance == name)
    previous = member.from_generation
    if previous is None:
        raise RuntimeError(f"{name} has no previous generation to restore")
    change_instance(
        connection,
        name,
        generation=previous,
        health=HealthState.INITIALIZING.value,
        health_detail="previous OS disk not started yet",
    )
    # It was ready before the swap; it must be so again after it, so the old marks do not count.
    change_generation(connection, name, previous, started_at=None, ready_at=None)
    save_failure(connection, name, previous, None)
