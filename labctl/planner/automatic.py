"""May an automatic OS upgrade begin now? If not: why, and when to look again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labctl.model.image import VersionNumber
from labctl.model.machine import ImageReference
from labctl.model.plan import Hold, ScaleSet
from labctl.model.upgrade import MemberState, Upgrade, UpgradeCode
from labctl.planner.admission import admit_upgrade
from labctl.planner.gates import find_closed_window
from labctl.planner.members import asks_to_be_skipped
from labctl.planner.scale import find_change
from labctl.planner.situation import Situation, survey

_STEPS = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long automatic upgrades wait; the defaults are the page's."""

    first_within: timedelta = timedelta(hours=3)  # of switching automatic upgrades on
    later_from: timedelta = timedelta(minutes=30)  # of the moment when a version is offered
    later_to: timedelta = timedelta(minutes=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The version that `latest` means for a scale set, in its region."""

    image: ImageReference  # definition and number
    digest: str
    available_at: datetime  # published, and replicated to the region


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Begin an upgrade to `offer`."""

    offer: Offer
    reason: str


def decide_rollout(
    scale_set: ScaleSet,
    *,
    offer: Offer | None,
    enabled_at: datetime | None,
    past: Sequence[Upgrade],
    timing: Timing,
    now: datetime,
) -> Rollout | Hold:
    """Begin, or say why not; `past` are the ended upgrades of the scale set, in any order.

    A hold with `until` ends by time alone.
    """
    name, policy = scale_set.name, scale_set.spec.upgrade_policy.automatic_os_upgrade_policy
    if not policy.enable_automatic_os_upgrade or enabled_at is None:
        return Hold(subject=name, reason="automatic OS upgrades are off")
    if offer is None:
        reason = f"no version of {scale_set.spec.image.definition!r} is offered here as latest"
        return Hold(subject=name, reason=reason)
    version = offer.image.version
    if scale_set.upgrade is not None:
        running = scale_set.upgrade
        reason = f"upgrade {running.id} to {running.target_version} is running"
        return Hold(subject=name, reason=reason)
    outdated = [s for s in survey(scale_set) if s.is_counted and _is_outdated(s, offer)]
    if not outdated:
        return Hold(subject=name, reason=f"up to date: nothing runs an older image than {version}")
    blocked = _find_block(scale_set, outdated, offer, enabled_at, past)
    if blocked is not None:
        return Hold(subject=name, reason=blocked)
    due = find_due(name, offer, enabled_at=enabled_at, timing=timing)
    if now < due:
        return Hold(subject=name, reason=f"{version} is rolled out at its time", until=due)
    closed = find_closed_window(scale_set, now)
    if closed is not None:
        return Hold(subject=name, reason=f"{version} {closed.reason}", until=closed.until)
    change = find_change(scale_set)
    if change is not None:
        return Hold(subject=name, reason=f"{version} waits: instances come or go: {change}")
    refusal = admit_upgrade(
        scale_set,
        target_version=version,
        target_digest=offer.digest,
        policy=scale_set.spec.upgrade_policy.automatic_limits,
        now=now,
    )
    if refusal is not None:
        code = f"{refusal.code}: " if refusal.code else ""
        return Hold(subject=name, reason=f"{version} waits: {code}{refusal.message}")
    return Rollout(
        offer=offer,
        reason=f"{len(outdated)} instances run an older image than {offer.image.definition}/"
        f"{version}, offered since {offer.available_at:%Y-%m-%d %H:%M} UTC",
    )


def find_due(name: str, offer: Offer, *, enabled_at: datetime, timing: Timing) -> datetime:
    """When a rollout may begin; spread by name, so that a hundred sets do not begin at once."""
    # Switched on at 12:00, share 0.5: not before 13:30. A version of 15:00: at 15:45.
    first = enabled_at + timing.first_within * _share(name)
    span = timing.later_to - timing.later_from
    later = offer.available_at + timing.later_from + span * _share(f"{name} {offer.digest}")
    return max(first, later)


def _share(text: str) -> float:
    """Between 0 and 1, always the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / _STEPS


def _is_outdated(situation: Situation, offer: Offer) -> bool:
    """Does it run something older? What is newer than the offer is never taken back."""
    current = situation.current
    if current.image_digest == offer.digest or situation.instance.protect_from_scale_set_actions:
        return False
    if asks_to_be_skipped(situation):
        return False
    if situation.model.image.definition != offer.image.definition:
        return True
    return VersionNumber.parse(current.image_version) < VersionNumber.parse(offer.image.version)


def _find_block(
    scale_set: ScaleSet,
    outdated: Sequence[Situation],
    offer: Offer,
    enabled_at: datetime,
    past: Sequence[Upgrade],
) -> str | None:
    """Why this version is not tried again: it has had its chance with this model."""
    attempts = [
        upgrade
        for upgrade in past
        if upgrade.target_digest == offer.digest
        and upgrade.model_revision == scale_set.model_revision
        and upgrade.started_at >= enabled_at
    ]
    last = max(attempts, key=lambda upgrade: upgrade.id, default=None)
    if last is None:
        return None
    version = offer.image.version
    again = (
        "it is tried again after a newer version, a change of the model, or "
        f"labctl upgrade start {scale_set.name}"
    )
    if last.code is UpgradeCode.COMPLETED:
        states = {member.instance: member.state for member in last.members}
        if all(_has_failed(states.get(s.instance.name)) for s in outdated):
            names = ", ".join(s.instance.name for s in outdated)
            return f"{version} failed on {names} in upgrade {last.id}; {again}"
        return None
    reason = last.error.message if last.error is not None else last.end_reason
    why = f" ({reason})" if reason else ""
    return f"upgrade {last.id} to {version} ended {last.code.value}{why}; {again}"


def _has_failed(state: MemberState | None) -> bool:
    return state is not None and state.has_failed
