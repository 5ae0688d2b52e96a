"""What keeps the next batch of an upgrade from beginning, though no limit is exceeded."""

from datetime import datetime

from labctl.model.plan import Hold, ScaleSet
from labctl.model.upgrade import Upgrade


def find_gate(scale_set: ScaleSet, upgrade: Upgrade, now: datetime) -> Hold | None:
    """The first thing that the next batch has to wait for; None: nothing."""
    return _find_user_pause(scale_set, upgrade) or _find_pause(scale_set, upgrade, now)


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
