"""Puts together what the planner is asked about: the store, the hypervisor, the health answers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from labctl.controller.build import build_domain, probe_target
from labctl.controller.clock import now as read_clock
from labctl.controller.lab import Lab
from labctl.controller.prober import Prober, Sample
from labctl.controller.zones import load_clocks
from labctl.drivers.host import read_host_facts
from labctl.drivers.hypervisor import DomainEvent, LifecycleKind, ObservedDomain
from labctl.errors import NotFoundError
from labctl.model.event import EventKind
from labctl.model.instance import (
    NO_DOMAIN,
    DomainFacts,
    Failure,
    Health,
    Identity,
    Instance,
    Power,
    Rung,
    Wanted,
)
from labctl.model.plan import HostCapacity, ScaleSet
from labctl.model.upgrade import Member, MemberState
from labctl.store.data_disks import DataDiskRow, load_data_disks
from labctl.store.events import add_event
from labctl.store.instances import load_identities, save_failure, save_health
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import change_member

_REFRESH = timedelta(seconds=10)  # libvirt's events say what changes; this is for a lost one
_HOST_RESERVE = 512 * 2**20  # bytes left to the host when memory is given to instances


_Records = tuple[ScaleSet, dict[str, Identity], list[DataDiskRow]]


class Observer:
    """The eyes of one reconciler. Only `_on_event` runs in another thread."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        pool: ThreadPoolExecutor,
        wake: Callable[[], None],
        *,
        answered: Callable[[], None] | None = None,
        writes: bool = True,
    ) -> None:
        """`writes`: record what is noticed; only the process that holds the lock may.

        `wake` is called when a domain has changed, `answered` (default: `wake`) when a health
        answer has come.
        """
        self._lab = lab
        self._name = name
        self._wake = wake
        self._writes = writes
        self._prober = Prober(pool, answered or wake)
        self._untold: dict[str, Health] = {}  # verdicts that changed between two turns
        self._domains: dict[str, ObservedDomain] = {}
        self._is_stale = True
        self._seen_at: datetime | None = None
        self._hashes: dict[tuple[object, ...], str] = {}
        self._records: tuple[int, _Records] | None = None  # by the version of the store

    @contextmanager
    def subscribed(self, on_stopped: Callable[[str, str], None]) -> Iterator[None]:
        """Hear of domains that start, stop and crash while the block runs."""

        def on_event(event: DomainEvent) -> None:
            # Other scale sets and other tools have domains here, too. RESYNC has no name.
            if event.name and event.name.rpartition("_")[0] != self._name:
                return
            self._is_stale = True
            if event.kind in {LifecycleKind.STOPPED, LifecycleKind.CRASHED}:
                on_stopped(event.name, f"the instance went off by itself ({event.detail})")
            self._wake()

        unsubscribe = self._lab.hypervisor.subscribe(on_event)
        try:
            yield
        finally:
            unsubscribe()

    def mark_stale(self) -> None:
        """Ask the hypervisor again before the next plan."""
        self._is_stale = True

    def next_probe(self) -> datetime | None:
        """When the next health question is due."""
        return self._prober.next_due()

    def hear(self, now: datetime) -> bool:
        """Take in health answers and ask what is due; True when a verdict has changed."""
        self._untold |= self._prober.step(now)
        return self._prober.has_turned or bool(self._untold)

    def samples(self, instance: str) -> tuple[Sample, ...]:
        """The latest health answers of an instance."""
        return self._prober.samples(instance)

    def forget_health(self, instance: str) -> None:
        """Drop what is known of an instance that is being switched on or off."""
        self._prober.forget(instance)

    def observe(self, now: datetime, *, busy: frozenset[str]) -> ScaleSet | None:
        """The facts of now; None when the scale set is gone.

        `busy` instances are being worked on, so that what they look like means little.
        """
        self._look_at_domains(now)
        try:
            view, identities, disks = self._read()
        except NotFoundError:
            return None
        instances = tuple(
            replace(
                instance,
                domain=self._domain_facts(view, instance, identities[instance.name], disks),
            )
            for instance in view.instances
        )
        view = replace(view, instances=instances)
        view = self._ask_for_health(view, identities, now)
        view = self._note_progress(view, busy, now)
        return replace(view, capacity=self._capacity(view), clocks=load_clocks(view.spec, now))

    def observe_answered(self, patience: timedelta) -> ScaleSet | None:
        """The facts, once every settled instance has a verdict of now, or `patience` is over.

        One answer is not always enough: a probe may need several, and silence is no verdict.
        """
        end = read_clock() + patience
        pause = threading.Event()
        view = self.observe(read_clock(), busy=frozenset())
        while self._prober.has_open and (now := read_clock()) < end:
            self._prober.await_answers(end - now)
            due = self._prober.next_due()
            if due is not None and self._prober.has_open:
                pause.wait(min(max((due - read_clock()).total_seconds(), 0.0), 1.0))
            view = self.observe(read_clock(), busy=frozenset())
        return view

    def _read(self) -> _Records:
        """What the store says; read again only when somebody has written something."""
        version = self._lab.database.find_version()  # first: what is written meanwhile counts
        if self._records is None or self._records[0] != version:
            with self._lab.database.read() as connection:
                view = load_view(connection, self._name, capacity=self._no_capacity())
                identities = load_identities(connection, self._name)
                disks = load_data_disks(connection, self._name)
            self._records = (version, (view, identities, disks))
        return self._records[1]

    def _look_at_domains(self, now: datetime) -> None:
        is_fresh = self._seen_at is not None and timedelta(0) <= now - self._seen_at < _REFRESH
        if is_fresh and not self._is_stale:  # a clock that was set back makes nothing fresh
            return
        self._is_stale = False  # before asking: an event that comes meanwhile must not be lost
        self._domains = self._lab.hypervisor.list_domains(
            self._lab.settings.state_dir, scale_set=self._name
        )
        self._seen_at = now

    def _domain_facts(
        self, view: ScaleSet, instance: Instance, identity: Identity, disks: list[DataDiskRow]
    ) -> DomainFacts:
        domain = self._domains.get(instance.name)
        if domain is None or domain.uuid != identity.uuid:
            return NO_DOMAIN
        booted = instance.find_generation(domain.generation)
        is_stale = False
        if booted is not None and booted.prepared:
            # A number is given again after a disk was rolled back from and thrown away.
            made = (booted.number, booted.image_digest, booted.model_revision)
            key = (instance.name, made, identity, tuple(disks))
            if key not in self._hashes:
                config = build_domain(self._lab, view, instance, booted, identity, disks)
                self._hashes[key] = config.config_hash
            is_stale = domain.config_hash != self._hashes[key]
        return DomainFacts(
            generation=domain.generation,
            power=domain.power,
            reason=domain.reason,
            is_stale=is_stale,
        )

    def _ask_for_health(
        self, view: ScaleSet, identities: dict[str, Identity], now: datetime
    ) -> ScaleSet:
        for instance in view.instances:
            model = view.models[instance.current.model_revision]
            target = probe_target(model, identities[instance.name])
            is_wanted = instance.wanted is Wanted.RUNNING
            if target is None or not instance.is_settled or not is_wanted:
                self._prober.forget(instance.name)
                continue
            source = model.health.application_health or model.health.probe
            is_agent = model.health.application_health is not None
            self._prober.watch(
                instance.name,
                target,
                generation=instance.generation,
                interval=source.interval if source else timedelta(seconds=5),
                # The agent counts in the guest; asking it once is enough.
                needed=1 if is_agent or source is None else source.number_of_probes,
                known=instance.health,
            )
        told, self._untold = self._untold, {}
        changed = {
            # Who was switched off or on since begins anew.
            **{name: told[name] for name in told if self._prober.health(name) == told[name]},
            **self._prober.step(now),
        }
        if changed and self._writes:
            before = {i.name: (i.health.state, i.health.detail) for i in view.instances}
            with self._lab.database.write() as connection:
                for name, health in changed.items():
                    save_health(connection, name, health)
                    # Custom metrics alone are no event: some applications count in them.
                    if before.get(name) != (health.state, health.detail):
                        add_event(
                            connection,
                            at=now,
                            scale_set=view.name,
                            instance=name,
                            kind=EventKind.HEALTH,
                            message=f"{health.state.value.lower()}: {health.detail}",
                        )
        return replace(
            view,
            instances=tuple(
                replace(instance, health=self._prober.health(instance.name) or instance.health)
                for instance in view.instances
            ),
        )

    def _note_progress(self, view: ScaleSet, busy: frozenset[str], now: datetime) -> ScaleSet:
        """Write down what only looking tells: a member has settled, or has switched itself off."""
        upgrade = view.upgrade
        if upgrade is None or not self._writes:
            return view
        by_name = {instance.name: instance for instance in view.instances}
        members: list[Member] = []
        instances = dict(by_name)
        for member in upgrade.members:
            instance = by_name.get(member.carrier)
            if instance is None or not member.state.is_moving or instance.name in busy:
                members.append(member)
                continue
            if member.settled_at is None and has_settled(view, instance):
                member = replace(member, settled_at=now)  # noqa: PLW2901 - the newer fact
                with self._lab.database.write() as connection:
                    change_member(connection, upgrade.id, member.instance, settled_at=now)
            failure = self._find_power_failure(instance, member, now)
            if failure is not None:
                with self._lab.database.write() as connection:
                    save_failure(connection, instance.name, instance.generation, failure)
                instances[instance.name] = replace(
                    instance,
                    generations=tuple(
                        replace(generation, failure=failure)
                        if generation.number == instance.generation
                        else generation
                        for generation in instance.generations
                    ),
                )
            members.append(member)
        return replace(
            view,
            instances=tuple(instances.values()),
            upgrade=replace(upgrade, members=tuple(members)),
        )

    def _find_power_failure(
        self, instance: Instance, member: Member, now: datetime
    ) -> Failure | None:
        """An upgraded instance that went off by itself has failed; one that never ran has not."""
        domain, current = instance.domain, instance.current
        if (
            current.failure is not None
            or current.started_at is None
            or domain.generation != instance.generation
            or member.state is MemberState.PENDING
        ):
            return None
        if domain.power is Power.CRASHED or (
            domain.power is Power.STOPPED and domain.reason in {"shutdown", "crashed", "failed"}
        ):
            return Failure(
                rung=Rung.HEALTH if current.is_ready else Rung.POWER_ON,
                message=f"the instance went off by itself ({domain.reason or 'crashed'})",
                at=now,
            )
        return None

    def _no_capacity(self) -> HostCapacity:
        return HostCapacity(
            boots_at_once=self._lab.boots_at_once,
            free_memory=0,
            overhead_per_instance=self._lab.overhead_per_instance,
        )

    def _capacity(self, view: ScaleSet) -> HostCapacity:
        facts = read_host_facts(self._lab.settings.state_dir)
        # A guest takes its memory little by little, so what is promised counts, not what is used.
        promised = sum(
            view.models[instance.current.model_revision].size.memory
            + self._lab.overhead_per_instance
            for instance in view.instances
            if instance.domain.power is Power.RUNNING
        )
        others = self._lab.share.promise(view.name, promised) if self._writes else 0
        free = min(facts.free_memory, facts.memory - promised - others) - _HOST_RESERVE
        return replace(self._no_capacity(), free_memory=max(free, 0), free_space=facts.free_space)


def has_settled(view: ScaleSet, instance: Instance) -> bool:
    """Is it ready on the wanted disk with every extension through, so that only health is open?"""
    asked, started = instance.restart_asked_at, instance.current.started_at
    if asked is not None and started is not None and asked > started:
        return False  # it is still the boot before the one that is asked for
    extensions = view.models[instance.current.model_revision].extensions
    return instance.is_settled and all(map(instance.current.is_through, extensions))
