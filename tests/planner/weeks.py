"""Weeks of several scale sets with automatic upgrades, in simulated time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from labctl.model.image import ImageVersion, Replica, VersionNumber, find_latest
from labctl.model.machine import ImageReference
from labctl.model.plan import ScaleSet
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import StartedBy, Upgrade
from labctl.model.window import MaintenanceWindow
from labctl.planner import Offer, Rollout, Timing, decide_rollout
from tests.planner.controls import CLOCKS
from tests.planner.world import T0, Script, World, digest, make_upgrade

STEP = timedelta(minutes=5)  # the daemon looks more often; nothing here needs it


@dataclass(kw_only=True)
class Calendar:
    """A lab over weeks: a gallery, scale sets, and what people do when."""

    sets: dict[str, ScaleSet]
    enabled_at: dict[str, datetime | None]
    gallery: dict[str, ImageVersion] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)  # versions that never become healthy
    past: dict[str, list[Upgrade]] = field(default_factory=dict)
    later: list[tuple[datetime, str, Callable[["Calendar"], None]]] = field(default_factory=list)
    now: datetime = T0
    lead: timedelta = timedelta(0)  # how far the clock of the controller is wrong
    log: list[str] = field(default_factory=list)
    _last: dict[str, str] = field(default_factory=dict)

    def at(self, day: float, label: str, change: Callable[["Calendar"], None]) -> None:
        self.later.append((T0 + timedelta(days=day), label, change))
        self.later.sort(key=lambda entry: entry[0])

    def run(self, days: float) -> "Calendar":
        while self.now < T0 + timedelta(days=days):
            while self.later and self.later[0][0] <= self.now:
                _, label, change = self.later.pop(0)
                self._write("lab", label)
                change(self)
            for name in sorted(self.sets):
                self._look(name)
            self.now += STEP
        return self

    @property
    def clock(self) -> datetime:
        """What the controller reads."""
        return self.now + self.lead

    def _look(self, name: str) -> None:
        scale_set = self.sets[name]
        decision = decide_rollout(
            scale_set,
            offer=self._find_offer(scale_set.spec),
            enabled_at=self.enabled_at[name],
            past=self.past.get(name, []),
            timing=Timing(),
            now=self.clock,
        )
        if isinstance(decision, Rollout):
            self._write(name, f"upgrade to {decision.offer.image.version}: {decision.reason}")
            self._upgrade(name, decision.offer)
            self._last.pop(name, None)
            return
        until = f" (at {self._tell(decision.until)})" if decision.until else ""
        if self._last.get(name) != decision.reason:
            self._last[name] = decision.reason
            self._write(name, f"   {decision.reason}{until}")

    def _upgrade(self, name: str, offer: Offer) -> None:
        """Run the whole upgrade at once; it takes minutes, and a look comes every five."""
        scale_set = self.sets[name]
        upgrade = make_upgrade(
            scale_set,
            id=sum(map(len, self.past.values())) + 1,
            started_by=StartedBy.PLATFORM,
            target_version=offer.image.version,
            target_digest=offer.digest,
            started_at=self.clock,
        )

        def health(instance: str, version: str, generation: int) -> int | None:
            return None if version in self.bad else 4

        world = World(
            scale_set=replace(scale_set, upgrade=upgrade),
            script=Script(health=health),
            now=self.clock,
        ).run()
        ended = world.scale_set.upgrade
        assert ended is not None
        assert ended.code.is_final
        self.past.setdefault(name, []).append(ended)
        self.sets[name] = replace(world.scale_set, upgrade=None)
        counts = ", ".join(f"{n} {c}" for n, c in ended.counts.items() if c)
        self._write(name, f"upgrade {ended.id} {ended.code.value}: {counts}")

    def _find_offer(self, spec: ScaleSetSpec) -> Offer | None:
        versions = tuple(self.gallery.values())
        latest = find_latest(versions, region=spec.region, now=self.clock)
        available_at = latest.find_available_at(spec.region) if latest else None
        if latest is None or available_at is None:
            return None
        reference = ImageReference(definition="tiny", version=str(latest.version))
        return Offer(image=reference, digest=latest.digest, available_at=available_at)

    def _write(self, who: str, text: str) -> None:
        self.log.append(f"{self._tell(self.now)} {who}: {text}")

    def _tell(self, moment: datetime) -> str:
        days = (moment.date() - T0.date()).days
        return f"day {days:02d} {moment:%H:%M}"


# --- what people do ------------------------------


def publish(version: str, *, regions: tuple[str, ...] = (), bad: bool = False):
    def change(calendar: Calendar) -> None:
        calendar.gallery[version] = ImageVersion(
            definition="tiny",
            version=VersionNumber.parse(version),
            digest=digest(version),
            file_size=1,
            virtual_size=1,
            created_at=calendar.clock,
            published_at=calendar.clock,
            replicas=tuple(Replica(region=r, replicated_at=calendar.clock) for r in regions),
        )
        if bad:
            calendar.bad.add(version)

    return change


def replicate(version: str, region: str):
    def change(calendar: Calendar) -> None:
        image = calendar.gallery[version]
        added = Replica(region=region, replicated_at=calendar.clock)
        calendar.gallery[version] = replace(image, replicas=(*image.replicas, added))

    return change


def exclude(version: str):
    def change(calendar: Calendar) -> None:
        calendar.gallery[version] = replace(calendar.gallery[version], excluded_from_latest=True)

    return change


def retire(version: str, *, after: timedelta):
    def change(calendar: Calendar) -> None:
        calendar.gallery[version] = replace(
            calendar.gallery[version], end_of_life=calendar.clock + after
        )

    return change


def switch(name: str, *, on: bool):
    def change(calendar: Calendar) -> None:
        scale_set = calendar.sets[name]
        policy = scale_set.spec.upgrade_policy
        automatic = policy.automatic_os_upgrade_policy.model_copy(
            update={"enable_automatic_os_upgrade": on}
        )
        changed = policy.model_copy(update={"automatic_os_upgrade_policy": automatic})
        spec = scale_set.spec.model_copy(update={"upgrade_policy": changed})
        calendar.sets[name] = replace(
            scale_set, spec=spec, models={**scale_set.models, scale_set.model_revision: spec}
        )
        calendar.enabled_at[name] = calendar.clock if on else None

    return change


def open_in(name: str, *windows: MaintenanceWindow):
    """Its maintenance windows from now on; none: it may always be touched."""

    def change(calendar: Calendar) -> None:
        scale_set = calendar.sets[name]
        policy = scale_set.spec.upgrade_policy.model_copy(update={"maintenance_windows": windows})
        spec = scale_set.spec.model_copy(update={"upgrade_policy": policy})
        models = {**scale_set.models, scale_set.model_revision: spec}
        calendar.sets[name] = replace(scale_set, spec=spec, models=models, clocks=CLOCKS)

    return change


def set_clock(lead: timedelta):
    def change(calendar: Calendar) -> None:
        calendar.lead = lead

    return change
