"""What keeps the next batch of an upgrade from beginning, though no limit is exceeded."""

from datetime import datetime

from labctl.model.plan import Hold, ScaleSet
from labctl.model.upgrade import Upgrade
from labctl.model.window import find_next_opening, is_open


def find_gate(scale_set: ScaleSet, upgrade: Upgrade, now: datetime) -> Hold | None:
    """The first thing that the next batch has to wait for; None: nothing."""
    return (
        _find_user_pause(scale_set, upgrade)
        or _find_pause(scale_set, upgrade, now)
        or (None if upgrade.ignores_windows else find_closed_window(scale_set, now))
    )


def find_closed_window(scale_set: ScaleSet, now: datetime) -> Hold | None:
    """Wait for the next maintenance window; None: one is open, or there are none.

    Windows hold as the newest spec has them, also for an upgrade that is running: they say when
    the site may be touched, which is no matter of one attempt.
    """
    windows = scale_set.spec.upgrade_policy.maintenance_windows
    if is_open(windows, scale_set.clocks, now):
        return None
    until = find_next_opening(windows, scale_set.clocks, now)
    if until is None:
        zones = ", ".join(sorted({window.time_zone for window in windows}))
        reason = f"no maintenance window opens: this host does not know the time zone ({zones})"
        return Hold(subject=scale_set.name, reason=reason)
    reason = f"waits for the maintenance window of {until:%Y-%m-%d %H:%M} UTC"
    return Hold(subject=scale_set.name, reason=reason, until=until)


def _find_user_pause(scale_set: ScaleSet, upgrade: Upgrade) -> Hold | None:
    if upgrade.paused_at is None:
        return None
    reason = (
        f"upgrade {upgrade.id} is paused by its user since {upgrade.paused_at:%Y-%m-%d %H:%M} UTC; "
        f"to go on: labctl upgrade resume {scale_set.name}"
    )
    return Hold(subject=scale_set.name, reason=reason)


def _find_pause(scale_set: ScaleSet, upgrade: Upgrade, now: datetime) -> Hold | None:
    if upgrade.batch_ended_at is None:
        return None
    until = upgrade.batch_ended_at + upgrade.policy.pause_time_between_batches
    if now >= until:
        return None
    reason = f"pause before batch {upgrade.batches + 1}, {(until - now).total_seconds():.0f} s left"
    return Hold(subject=scale_set.name, reason=reason, until=until)
