"""The OS-disk swap, step by step: prepare, stop, define, start, throw away."""

from dataclasses import replace
from datetime import timedelta

from labctl.controller.build import (
    build_domain,
    build_ignition,
    build_network,
    build_seed,
    console_log,
    find_ignition_entry,
    generation_files,
    new_data_disks,
)
from labctl.controller.clock import now
from labctl.controller.guests import Guests
from labctl.controller.journal import note
from labctl.controller.lab import Lab
from labctl.controller.observe import Observer
from labctl.controller.signals import Signal
from labctl.drivers.disks import (
    discard_os_generation,
    ensure_data_disk,
    ensure_overlay,
    list_orphans,
)
from labctl.drivers.failpoint import reach
from labctl.drivers.hypervisor import PortTakenError
from labctl.drivers.ignition import ensure_ignition
from labctl.drivers.ports import choose_ports
from labctl.drivers.seed import ensure_seed
from labctl.errors import InstanceHostError
from labctl.model.event import EventKind
from labctl.model.instance import (
    NO_DOMAIN,
    Generation,
    Health,
    HealthState,
    Instance,
    Power,
)
from labctl.model.plan import (
    Define,
    DeleteInstance,
    DiscardGeneration,
    Prepare,
    ScaleSet,
    Start,
    Stop,
)
from labctl.model.spec import ScaleSetSpec
from labctl.store.data_disks import (
    DataDiskRow,
    insert_data_disk,
    load_data_disks,
    mark_made,
)
from labctl.store.events import add_event
from labctl.store.hooks import drop_hook_runs
from labctl.store.instances import (
    change_generation,
    change_instance,
    clear_restart,
    load_identities,
    load_identity,
    load_reserved_ports,
    move_ports,
    remove_generation,
    remove_instance,
    save_health,
    save_hook_failure,
)
from labctl.store.scale_sets import find_scale_set, remove_scale_set
from labctl.store.upgrades import change_member

_PORT_TRIES = 5
_GRACE_OF_DEAF = timedelta(seconds=5)
_ROTATED_LOGS = 10  # virtlogd keeps 3 unless told otherwise


class Swap:
    """Handles disks and domains. Every step may be repeated at any time."""

    def __init__(self, lab: Lab, observer: Observer, guests: Guests) -> None:
        self._lab = lab
        self._observer = observer
        self._guests = guests

    def prepare(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Prepare
    ) -> None:
        """Make the files of a generation and the data disks that are missing."""
        lab = self._lab
        model = view.models[generation.model_revision]
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
        files = generation_files(lab, view.name, instance.name, generation.number)
        reach("prepare:begin")
        ensure_overlay(files, lab.blob(generation.image_digest), model.os_disk.size)
        reach("prepare:overlay")
        ensure_seed(files.seed, build_seed(lab, instance, generation, model, identity))
        if files.ignition is not None and find_ignition_entry(lab, generation, model) is not None:
            ensure_ignition(files.ignition, build_ignition(lab, instance, model, identity))
        reach("prepare:seed")
        self._ensure_data_disks(view, instance, model)
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, prepared=True)
        reach("prepare:recorded")
        note(
            self._lab.database,
            view,
            instance,
            EventKind.STEP,
            f"OS disk {generation.number} prepared from image {generation.image_version}, "
            f"{action.reason}",
        )

    def _ensure_data_disks(self, view: ScaleSet, instance: Instance, model: ScaleSetSpec) -> None:
        lab = self._lab
        with lab.database.read() as connection:
            rows = load_data_disks(connection, view.name, instance.ordinal)
        known = {row.name: row for row in rows}
        for disk in new_data_disks(lab, view.name, instance, model):
            row = known.get(disk.name)
            if row is not None and row.is_made and not row.path.exists():
                raise InstanceHostError(
                    f"the file of data disk {row.instance}/{row.name} is gone: {str(row.path)!r}",
                    detail="labctl made it once and does not put an empty disk in its place",
                    hint="mount or restore it; to give its data up: labctl scale "
                    f"{view.name} N without it, then labctl disk delete {row.instance}/{row.name}",
                )
            if row is None:
                # The row comes first: a disk without a row would be a disk that nobody knows.
                with lab.database.write() as connection:
                    insert_data_disk(
                        connection,
                        DataDiskRow(
                            scale_set=view.name,
                            ordinal=instance.ordinal,
                            name=disk.name,
                            path=disk.path,
                            serial=disk.serial,
                            size=disk.size,
                            created_at=now(),
                        ),
                    )
            ensure_data_disk(disk)
            if row is None or not row.is_made:
                with lab.database.write() as connection:
                    mark_made(connection, disk.path)

    def stop(self, view: ScaleSet, instance: Instance, action: Stop, signal: Signal) -> None:
        """Shut the instance down, whatever generation it runs."""
        started = now()
        upgrade = view.upgrade
        with self._lab.database.write() as connection:
            save_health(
                connection, instance.name, Health(state=HealthState.UNKNOWN, detail="stopping")
            )
            # From here on an instance that is off is off because of us. Written first: a
            # controller that dies meanwhile must not leave what looks like a crash of the guest.
            for generation in instance.generations:
                change_generation(
                    connection, instance.name, generation.number, started_at=None, ready_at=None
                )
            change_instance(connection, instance.name, drained_at=None)
            save_hook_failure(connection, instance.name, None)
            drop_hook_runs(connection, instance.name, now=started)
            if upgrade is not None and any(
                m.instance == m.carrier == instance.name
                and m.state.is_moving
                and m.stopped_at is None
                for m in upgrade.members
            ):
                change_member(connection, upgrade.id, instance.name, stopped_at=started)
        self._guests.hang_up(instance.name)
        reach("stop:begin")
        grace = _grace(view, instance)
        how = self._lab.hypervisor.ensure_stopped(instance.name, grace=grace, cancel=signal.event)
        reach("stop:done")
        note(
            self._lab.database,
            view,
            instance,
            EventKind.STEP,
            f"stopped ({how.value}) in {(now() - started).total_seconds():.1f} s, {action.reason}",
        )

    def define(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Define
    ) -> None:
        """Point the instance's domain at a generation."""
        lab = self._lab
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
            disks = load_data_disks(connection, view.name, instance.ordinal)
        reach("define:begin")
        self._ensure_network(view)
        lab.hypervisor.ensure_defined(
            build_domain(lab, view, instance, generation, identity, disks)
        )
        reach("define:done")
        note(
            self._lab.database,
            view,
            instance,
            EventKind.STEP,
            f"defined on OS disk {generation.number}, {action.reason}",
        )

    def start(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Start
    ) -> None:
        """Power on, and record when."""
        lab = self._lab
        log = console_log(lab, view.name, instance.name)
        offset = log.stat().st_size if log.exists() else 0
        self._observer.forget_health(instance.name)
        with lab.database.write() as connection:
            change_generation(
                connection, instance.name, generation.number, console_offset=offset, ready_at=None
            )
            save_health(
                connection,
                instance.name,
                Health(state=HealthState.INITIALIZING, detail="starting"),
            )
        reach("start:begin")
        self._ensure_network(view)  # after a restart of the host it is defined and does not run
        started = now()
        self._power_on(view, instance, generation)
        reach("start:done")
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, started_at=started)
            clear_restart(connection, instance.name, until=started)
        reach("start:recorded")
        note(
            self._lab.database,
            view,
            instance,
            EventKind.RUNG,
            f"powered on with image {generation.image_version}, {action.reason}",
        )

    def _ensure_network(self, view: ScaleSet) -> None:
        with self._lab.database.read() as connection:
            row = find_scale_set(connection, view.name)
            identities = load_identities(connection, view.name)
        if row is not None and row.subnet is not None:
            network = build_network(self._lab, view.name, row.subnet, identities)
            self._lab.hypervisor.ensure_network(network)

    def _power_on(self, view: ScaleSet, instance: Instance, generation: Generation) -> None:
        """Start; where a stranger listens on one of its ports, move to others and try again."""
        lab = self._lab
        for attempt in range(_PORT_TRIES):
            try:
                lab.hypervisor.ensure_started(instance.name)
            except PortTakenError:
                if attempt + 1 == _PORT_TRIES:
                    raise
                with lab.database.write() as connection:
                    identity = load_identity(connection, instance.name)
                    ssh, agent, probe = choose_ports(3, taken=load_reserved_ports(connection))
                    moved = replace(identity, ssh_port=ssh, agent_port=agent, probe_port=probe)
                    move_ports(connection, instance.name, moved)
                    disks = load_data_disks(connection, view.name, instance.ordinal)
                note(
                    self._lab.database,
                    view,
                    instance,
                    EventKind.WARNING,
                    f"a port was taken by another program; moved to {ssh}, {agent}, {probe}",
                )
                lab.hypervisor.ensure_defined(
                    build_domain(lab, view, instance, generation, moved, disks)
                )
            else:
                return

    def discard(self, view: ScaleSet, instance: Instance, action: DiscardGeneration) -> None:
        """Throw the files of a generation away, then its record."""
        files = generation_files(self._lab, view.name, instance.name, action.generation)
        reach("discard:begin")
        discard_os_generation(files)
        reach("discard:files")
        with self._lab.database.write() as connection:
            remove_generation(connection, instance.name, action.generation)
        note(
            self._lab.database,
            view,
            instance,
            EventKind.STEP,
            f"OS disk {action.generation} thrown away, {action.reason}",
        )

    def delete(self, view: ScaleSet, instance: Instance, action: DeleteInstance) -> None:
        """Undefine the domain and throw its OS disks away; data disks stay."""
        lab = self._lab
        self._guests.hang_up(instance.name)
        # A domain of that name that is not ours stays, and does not keep us from tidying up.
        if instance.domain != NO_DOMAIN:
            lab.hypervisor.ensure_stopped(instance.name, grace=_grace(view, instance), cancel=None)
            lab.hypervisor.ensure_undefined(instance.name)
        reach("delete:undefined")
        for generation in instance.generations:
            discard_os_generation(
                generation_files(lab, view.name, instance.name, generation.number)
            )
        log = console_log(lab, view.name, instance.name)
        for path in (log, *(log.with_name(f"{log.name}.{n}") for n in range(_ROTATED_LOGS))):
            path.unlink(missing_ok=True)
        reach("delete:files")
        with lab.database.write() as connection:
            remove_instance(connection, instance.name)
        note(self._lab.database, view, instance, EventKind.STEP, f"deleted, {action.reason}")

    def remove_scale_set(self, view: ScaleSet) -> None:
        """Forget a scale set whose last instance is gone; data disks stay where they are."""
        lab = self._lab
        with lab.database.read() as connection:
            row = find_scale_set(connection, view.name)
        if row is not None and row.subnet is not None:
            network = build_network(lab, view.name, row.subnet, {})
            lab.hypervisor.ensure_network_absent(network.name, uuid=network.uuid)
        folder = lab.settings.scale_set_dir(view.name)
        for files in list_orphans(folder, known=()):
            discard_os_generation(files)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
        with lab.database.write() as connection:
            remove_scale_set(connection, view.name)
            add_event(
                connection,
                at=now(),
                scale_set=view.name,
                kind=EventKind.STEP,
                message="scale set deleted",
            )


def _grace(view: ScaleSet, instance: Instance) -> timedelta:
    """How long the guest may take to shut down before its power is cut."""
    grace = view.models[instance.current.model_revision].timeouts.shutdown
    booted = instance.find_generation(instance.domain.generation or 0)
    # A guest that is on its way up does not hear the power button. One without a start on record
    # is different: its shutdown was interrupted, and its data disks are still to be written.
    is_booting = booted is not None and booted.started_at is not None and not booted.is_ready
    if is_booting or instance.domain.power is Power.CRASHED:
        return min(grace, _GRACE_OF_DEAF)
    return grace
