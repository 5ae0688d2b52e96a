"""What keeps the next batch of an upgrade from beginning, though no limit is exceeded."""

from collections.abc import Sequence
from datetime import datetime

from labctl.model.instance import Power
from labctl.model.plan import Hold, ScaleSet
from labctl.model.upgrade import MemberState, Upgrade
from labctl.model.window import find_next_opening, is_open
from labctl.planner.health import find_failure, judge
from labctl.planner.situation import Situation


def find_gate(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation], now: datetime
) -> Hold | None:
    """The first thing that the next batch has to wait for; None: nothing."""
    return (
        _find_user_pause(scale_set, upgrade)
        or _find_bake(scale_set, upgrade, situations, now)
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


def _find_bake(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation], now: datetime
) -> Hold | None:
    """Wait until the canaries have stayed healthy for the whole time, without a break."""
    canary, ended_at = upgrade.control.canary, upgrade.batch_ended_at
    if canary is None or upgrade.batches != 1 or ended_at is None:
        return None
    proving = _find_proving(situations)
    ill = [s.instance.name for s in proving if not judge(s).is_healthy]
    if ill:
        reason = f"bake time of the canary begins anew when {', '.join(ill)} is healthy"
        moments = [_find_last_moment(upgrade, ended_at, s) for s in proving]
        last = min((moment for moment in moments if moment is not None), default=None)
        if last is not None:
            reason += f", {(last - now).total_seconds():.0f} s left"
        return Hold(subject=scale_set.name, reason=reason, until=last)
    since = [s.instance.health.since for s in proving]
    until = max([ended_at, *(each for each in since if each is not None)]) + canary.bake_time
    if now >= until:
        return None
    names = ", ".join(s.instance.name for s in proving)
    left = (until - now).total_seconds()
    reason = f"bake time of the canary ({names}), {left:.0f} s left"
    return Hold(subject=scale_set.name, reason=reason, until=until)


def find_failed_canary(
    upgrade: Upgrade, situations: Sequence[Situation], now: datetime
) -> str | None:
    """Say so when a canary fell ill and did not recover in its time for health.

    The limits may tolerate that; but its bake time would never be over.
    """
    canary, ended_at = upgrade.control.canary, upgrade.batch_ended_at
    if canary is None or upgrade.batches != 1 or ended_at is None:
        return None
    for situation in _find_proving(situations):
        last = _find_last_moment(upgrade, ended_at, situation)
        if last is not None and now >= last:
            return (
                f"canary {situation.instance.name} fell ill and was not healthy again within "
                f"{upgrade.health_timeout.total_seconds():g} s: {judge(situation).reason}"
            )
    return None


def _find_last_moment(
    upgrade: Upgrade, ended_at: datetime, situation: Situation
) -> datetime | None:
    """When an ill canary has had its time; None: it is healthy, or on its way to be judged."""
    instance, failure = situation.instance, find_failure(situation)
    if not judge(situation).is_unhealthy:
        return None
    if instance.domain.power in {Power.PAUSED, Power.CRASHED}:
        return ended_at  # as in its batch: certain at once
    since = instance.health.since if failure is None else failure.at
    if since is None or (failure is None and instance.domain.power is not Power.RUNNING):
        return None  # it is switched on again, and is judged then
    return max(ended_at, since) + upgrade.health_timeout


def _find_proving(situations: Sequence[Situation]) -> list[Situation]:
    # Who failed is judged by the limits; who was stopped or deleted proves nothing any more.
    return [s for s in situations if s.is_counted and _is_upgraded(s)]


def _is_upgraded(situation: Situation) -> bool:
    member = situation.member
    return member is not None and member.state is MemberState.SUCCEEDED
