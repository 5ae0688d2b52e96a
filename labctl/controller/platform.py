"""Starts upgrades without anybody's help, where the policy of a scale set asks for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from labctl.controller.guest_system import find_updates_fault
from labctl.controller.lab import Lab
from labctl.controller.resources import find_unreachable
from labctl.controller.upgrades import Target, start_upgrade
from labctl.errors import RefusedError
from labctl.model.image import ImageVersion, find_latest
from labctl.model.machine import ImageReference
from labctl.model.plan import Hold, ScaleSet
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import StartedBy, Upgrade
from labctl.planner import Offer, Rollout, Timing, decide_rollout
from labctl.store.database import Database
from labctl.store.gallery import load_versions
from labctl.store.scale_sets import get_scale_set
from labctl.store.settings import load_setting, save_setting
from labctl.store.upgrades import load_upgrades

_SETTING = "automatic-upgrades"
_ASK_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A version that `latest` does not mean for a scale set, and why."""

    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What automatic upgrades would do with a scale set, and why."""

    scale_set: str
    region: str
    offer: Offer | None
    decision: Rollout | Hold
    passed: tuple[Passed, ...]  # versions newer than the offer, lowest first


class Platform:
    """The hook of a daemon's reconcilers. Safe to share between threads."""

    def __init__(self, lab: Lab, timing: Timing) -> None:
        self._settings = lab.settings
        self._database = lab.database
        self._timing = timing
        # By scale set: for which model, what its extensions lacked, until when that holds.
        self._absent: dict[str, tuple[int, Hold]] = {}

    def consider(self, view: ScaleSet, now: datetime) -> Hold | None:
        """Start an upgrade when one is due; the value says what is waited for."""
        policy = view.spec.upgrade_policy.automatic_os_upgrade_policy
        if not policy.enable_automatic_os_upgrade or view.is_deleting or view.upgrade is not None:
            return None
        with self._database.read() as connection:
            forecast = foresee(connection, view, timing=self._timing, now=now)
        decision = forecast.decision
        if isinstance(decision, Hold):
            return decision
        absent = self._find_absent(view, now)
        if absent is not None:
            return absent
        try:
            with self._database.write() as connection:
                upgrade = start_upgrade(
                    connection,
                    view,
                    find_offer_target(connection, view, decision.offer),
                    restores=not policy.disable_automatic_rollback,
                    started_by=StartedBy.PLATFORM,
                    now=now,
                )
        except RefusedError as error:  # something changed since the look
            return Hold(subject=view.name, reason=f"{error.brief}; {error.detail or error.hint}")
        return Hold(subject=view.name, reason=f"upgrade {upgrade} begins", until=now)

    def _find_absent(self, view: ScaleSet, now: datetime) -> Hold | None:
        """What the extensions need and cannot have; servers are asked once a minute at most."""
        revision, known = self._absent.get(view.name, (0, None))
        is_recent = known is not None and known.until and now < known.until <= now + _ASK_EVERY
        if is_recent and revision == view.model_revision:  # another model may have what it needs
            return known
        faults = find_unreachable(view.spec, now=now, settings=self._settings)
        if not faults:
            self._absent.pop(view.name, None)
            return None
        told = "; ".join(f"{name}: {fault}" for name, fault in faults)
        hold = Hold(
            subject=view.name,
            reason=f"what the extensions need is not available: {told}",
            until=now + _ASK_EVERY,
        )
        self._absent[view.name] = (view.model_revision, hold)
        return hold


def foresee(connection: Connection, view: ScaleSet, *, timing: Timing, now: datetime) -> Forecast:
    """What would be done with `view` now. Changes nothing."""
    row = get_scale_set(connection, view.name)
    versions = load_versions(connection, view.spec.image.definition)
    latest = find_latest(versions, region=view.spec.region, now=now)
    offer = None if latest is None else _make_offer(latest, view.spec)
    fault = find_updates_fault(view.spec)
    decision = (
        Hold(subject=view.name, reason=fault)
        if fault is not None
        else decide_rollout(
            view,
            offer=offer,
            enabled_at=row.automatic_since,
            past=() if offer is None else _load_last(connection, view, offer, row.automatic_since),
            timing=timing,
            now=now,
        )
    )
    passed = tuple(
        Passed(version=str(each.version), reason=reason)
        for each in versions
        if latest is None or each.version > latest.version
        if (reason := each.find_reason_against(view.spec.region, now)) is not None
    )
    return Forecast(
        scale_set=view.name,
        region=view.spec.region,
        offer=offer,
        decision=decision,
        passed=passed,
    )


def _load_last(
    connection: Connection, view: ScaleSet, offer: Offer, since: datetime | None
) -> list[Upgrade]:
    """The latest attempt that counts; a daemon asks at every turn, so no more are read."""
    return load_upgrades(
        connection,
        view.name,
        since=since,
        target_digest=offer.digest,
        model_revision=view.model_revision,
        limit=1,
    )


def find_offer_target(connection: Connection, view: ScaleSet, offer: Offer) -> Target:
    """The image of an offer as the target of an upgrade. Raises RefusedError when it is gone."""
    image = next(
        (
            each
            for each in load_versions(connection, offer.image.definition)
            if str(each.version) == offer.image.version
        ),
        None,
    )
    if image is None:
        raise RefusedError(
            f"image version {offer.image.definition}/{offer.image.version} was deleted meanwhile",
            hint="another one is looked for",
        )
    return Target(image=image, model_revision=view.model_revision)


def save_timing(database: Database, timing: Timing) -> None:
    """Let other commands tell when a rollout begins."""
    value = {
        "firstWithinSeconds": timing.first_within.total_seconds(),
        "laterFromSeconds": timing.later_from.total_seconds(),
        "laterToSeconds": timing.later_to.total_seconds(),
    }
    with database.write() as connection:
        save_setting(connection, _SETTING, value)


def load_timing(connection: Connection) -> Timing:
    """What `labctl serve` was last started with, or the defaults."""
    value = load_setting(connection, _SETTING)
    if value is None:
        return Timing()
    return Timing(
        first_within=timedelta(seconds=value["firstWithinSeconds"]),
        later_from=timedelta(seconds=value["laterFromSeconds"]),
        later_to=timedelta(seconds=value["laterToSeconds"]),
    )


def _make_offer(image: ImageVersion, spec: ScaleSetSpec) -> Offer | None:
    available_at = image.find_available_at(spec.region)
    if available_at is None:
        return None
    reference = ImageReference(definition=image.definition, version=str(image.version))
    return Offer(image=reference, digest=image.digest, available_at=available_at)
