"""Carries out one action on one instance and writes down what came of it."""

import hashlib
import threading
from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from labctl.controller.build import (
    build_domain,
    build_network,
    build_seed,
    console_log,
    deadlines,
    generation_files,
    network_name,
    new_data_disks,
    ssh_target,
)
from labctl.controller.clock import now
from labctl.controller.evidence import collect_evidence
from labctl.controller.lab import Lab
from labctl.controller.observe import Observer
from labctl.drivers.disks import (
    discard_os_generation,
    ensure_data_disk,
    ensure_overlay,
    list_orphans,
)
from labctl.drivers.extension import rerun_custom_data, run_extension
from labctl.drivers.failpoint import reach
from labctl.drivers.hypervisor import PortTakenError
from labctl.drivers.ports import choose_ports
from labctl.drivers.readiness import NotReadyError, climb
from labctl.drivers.seed import ensure_seed
from labctl.drivers.ssh import SshConnection, wait_for_ssh
from labctl.errors import HostError, LabError
from labctl.model.event import EventKind
from labctl.model.instance import (
    ExtensionRun,
    Failure,
    Generation,
    Health,
    HealthState,
    Instance,
    Power,
    Rung,
)
from labctl.model.plan import (
    Action,
    AwaitReady,
    CollectEvidence,
    Define,
    DeleteInstance,
    DiscardGeneration,
    Prepare,
    RerunCustomData,
    RunExtension,
    ScaleSet,
    Start,
    Stop,
)
from labctl.store.data_disks import DataDiskRow, insert_data_disk, load_data_disks
from labctl.store.events import add_event
from labctl.store.instances import (
    change_generation,
    change_instance,
    find_console_offset,
    load_identities,
    load_identity,
    load_reserved_ports,
    move_ports,
    remove_generation,
    remove_instance,
    save_extension_run,
    save_failure,
    save_health,
)
from labctl.store.scale_sets import find_scale_set, remove_scale_set
from labctl.store.upgrades import change_member

_PORT_TRIES = 5
_RECONNECT = timedelta(seconds=60)


class Signal:
    """Tells a waiting action to stop: it is wanted no more, or it cannot succeed."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.message = ""  # set: the instance failed; empty: cancelled

    def cancel(self) -> None:
        """What the action waits for is wanted no more."""
        self.event.set()

    def fail(self, message: str) -> None:
        """What the action waits for cannot come."""
        self.message = message
        self.event.set()

    @property
    def is_cancelled(self) -> bool:
        """Was it stopped without a failure?"""
        return self.event.is_set() and not self.message


class Executor:
    """The hands of one reconciler. `execute` runs in threads, one per instance at most."""

    def __init__(self, lab: Lab, observer: Observer) -> None:
        self._lab = lab
        self._observer = observer
        self._connections: dict[str, SshConnection] = {}

    def close(self) -> None:
        """Hang up. A script that runs in a guest goes on there."""
        while self._connections:
            self._connections.popitem()[1].close()

    def execute(self, view: ScaleSet, action: Action, signal: Signal) -> None:
        """Do it, and record the facts. Raises HostError when the host, not the instance, fails."""
        instance = next(i for i in view.instances if i.name == action.instance)
        try:
            self._perform(view, instance, action, signal)
        except HostError:
            raise
        except LabError as error:
            if not signal.is_cancelled:
                self._fail(view, instance, _rung_of(action, error), str(error.brief), error.detail)

    def _perform(self, view: ScaleSet, instance: Instance, action: Action, signal: Signal) -> None:
        match action:
            case Prepare():
                self._prepare(view, instance, _generation(instance, action.generation), action)
            case Stop():
                self._stop(view, instance, action, signal)
            case Define():
                self._define(view, instance, _generation(instance, action.generation), action)
            case Start():
                self._start(view, instance, _generation(instance, action.generation), action)
            case AwaitReady():
                self._await_ready(view, instance, instance.current, signal)
            case RunExtension():
                self._run_extension(view, instance, action, signal)
            case RerunCustomData():
                self._rerun_custom_data(view, instance)
            case CollectEvidence():
                collect_evidence(
                    self._lab,
                    view,
                    instance,
                    action,
                    samples=self._observer.samples(instance.name),
                    connection=self._connections.get(instance.name),
                )
                self._note(view, instance, EventKind.STEP, "evidence of the failure saved")
            case DiscardGeneration():
                self._discard(view, instance, action)
            case DeleteInstance():
                self._delete(view, instance, action)
            case _:
                assert_never(action)

    def _prepare(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Prepare
    ) -> None:
        lab = self._lab
        model = view.models[generation.model_revision]
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
            known = load_data_disks(connection, view.name, instance.ordinal)
        files = generation_files(lab, view.name, instance.name, generation.number)
        reach("prepare:begin")
        ensure_overlay(files, lab.blob(generation.image_digest), model.os_disk.size)
        reach("prepare:overlay")
        ensure_seed(files.seed, build_seed(lab, instance, generation, model, identity))
        reach("prepare:seed")
        for disk in new_data_disks(lab, view.name, instance, model):
            if disk.name not in {row.name for row in known}:
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
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, prepared=True)
        reach("prepare:recorded")
        self._note(
            view,
            instance,
            EventKind.STEP,
            f"OS disk {generation.number} prepared from image {generation.image_version}, "
            f"{action.reason}",
        )

    def _stop(self, view: ScaleSet, instance: Instance, action: Stop, signal: Signal) -> None:
        started = now()
        upgrade = view.upgrade
        with self._lab.database.write() as connection:
            save_health(
                connection, instance.name, Health(state=HealthState.UNKNOWN, detail="stopping")
            )
            if upgrade is not None and any(
                m.instance == instance.name and m.state.is_moving and m.stopped_at is None
                for m in upgrade.members
            ):
                change_member(connection, upgrade.id, instance.name, stopped_at=started)
        self._hang_up(instance.name)
        reach("stop:begin")
        grace = view.models[instance.current.model_revision].timeouts.shutdown
        # A guest that never came up does not hear the power button either.
        booted = instance.find_generation(instance.domain.generation or 0)
        if (booted is not None and not booted.is_ready) or instance.domain.power is Power.CRASHED:
            grace = min(grace, timedelta(seconds=5))
        how = self._lab.hypervisor.ensure_stopped(instance.name, grace=grace, cancel=signal.event)
        reach("stop:done")
        self._note(
            view,
            instance,
            EventKind.STEP,
            f"stopped ({how.value}) in {(now() - started).total_seconds():.1f} s, {action.reason}",
        )

    def _define(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Define
    ) -> None:
        lab = self._lab
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
            identities = load_identities(connection, view.name)
            disks = load_data_disks(connection, view.name, instance.ordinal)
            row = find_scale_set(connection, view.name)
        reach("define:begin")
        if row is not None and row.subnet is not None:
            lab.hypervisor.ensure_network(build_network(view, row.subnet, identities))
        lab.hypervisor.ensure_defined(
            build_domain(lab, view, instance, generation, identity, disks)
        )
        reach("define:done")
        self._note(
            view,
            instance,
            EventKind.STEP,
            f"defined on OS disk {generation.number}, {action.reason}",
        )

    def _start(
        self, view: ScaleSet, instance: Instance, generation: Generation, action: Start
    ) -> None:
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
        started = now()
        self._power_on(view, instance, generation)
        reach("start:done")
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, started_at=started)
        reach("start:recorded")
        self._note(
            view,
            instance,
            EventKind.RUNG,
            f"powered on with image {generation.image_version}, {action.reason}",
        )

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
                self._note(
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

    def _await_ready(
        self, view: ScaleSet, instance: Instance, generation: Generation, signal: Signal
    ) -> None:
        lab = self._lab
        model = view.models[generation.model_revision]
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
            offset = find_console_offset(connection, instance.name, generation.number)
        self._hang_up(instance.name)
        report = climb(
            ssh_target(lab, identity),
            console_log=console_log(lab, view.name, instance.name),
            console_offset=offset,
            deadlines=deadlines(lab, model),
            failed=signal,
            on_rung=lambda _rung, text: self._note(view, instance, EventKind.RUNG, text),
        )
        self._connections[instance.name] = report.connection
        reach("ready:climbed")
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, ready_at=now())
            save_failure(connection, instance.name, generation.number, None)
        if report.warning:
            self._note(view, instance, EventKind.WARNING, report.warning)

    def _run_extension(
        self, view: ScaleSet, instance: Instance, action: RunExtension, signal: Signal
    ) -> None:
        lab = self._lab
        generation = _generation(instance, action.generation)
        model = view.models[generation.model_revision]
        extension = next(e for e in model.extensions if e.name == action.extension)
        script = (extension.script or "").encode()
        earlier = next((r for r in generation.extensions if r.name == extension.name), None)
        run = ExtensionRun(name=extension.name, started_at=now(), finished_at=None, exit_code=None)
        if earlier is not None and earlier.finished_at is None:
            run = replace(run, started_at=earlier.started_at)  # a dead controller began it
        with lab.database.write() as connection:
            save_extension_run(connection, instance.name, generation.number, run)
        reach("extension:recorded")
        digest = hashlib.sha256(script).hexdigest()[:12]
        # A later run on the same disk, asked for by its user, must not find the earlier result.
        key = f"g{generation.number}-{digest}-{run.started_at:%Y%m%d%H%M%S%f}"
        result = run_extension(
            self._connect(view, instance, signal),
            run_key=key,
            name=extension.name,
            script=script,
            timeout=extension.timeout,
        )
        reach("extension:ran")
        ended = replace(run, finished_at=now(), exit_code=result.exit_code, output=result.output)
        with lab.database.write() as connection:
            save_extension_run(connection, instance.name, generation.number, ended)
        seconds = (now() - run.started_at).total_seconds()
        if ended.has_succeeded:
            text = f"extension {extension.name!r} succeeded in {seconds:.1f} s, {action.reason}"
            self._note(view, instance, EventKind.RUNG, text)
            return
        how = (
            f"did not end within {extension.timeout.total_seconds():g} s"
            if result.timed_out
            else f"ended with exit code {result.exit_code}"
        )
        self._fail(
            view,
            instance,
            Rung.EXTENSIONS,
            f"extension {extension.name!r} {how}: {_last_line(result.output)}",
        )

    def _rerun_custom_data(self, view: ScaleSet, instance: Instance) -> None:
        connection = self._connect(view, instance, Signal())
        result = rerun_custom_data(connection)
        with self._lab.database.write() as transaction:
            change_instance(transaction, instance.name, rerun_custom_data_asked_at=None)
        if result.exit_code == 0:
            self._note(view, instance, EventKind.RUNG, "custom data ran again")
        else:
            output = _last_line(result.stderr or result.stdout)
            self._fail(
                view,
                instance,
                Rung.CUSTOM_DATA,
                f"custom data ended with exit code {result.exit_code}: {output}",
            )

    def _discard(self, view: ScaleSet, instance: Instance, action: DiscardGeneration) -> None:
        files = generation_files(self._lab, view.name, instance.name, action.generation)
        reach("discard:begin")
        discard_os_generation(files)
        reach("discard:files")
        with self._lab.database.write() as connection:
            remove_generation(connection, instance.name, action.generation)
        self._note(
            view,
            instance,
            EventKind.STEP,
            f"OS disk {action.generation} thrown away, {action.reason}",
        )

    def _delete(self, view: ScaleSet, instance: Instance, action: DeleteInstance) -> None:
        lab = self._lab
        self._hang_up(instance.name)
        grace = view.models[instance.current.model_revision].timeouts.shutdown
        if not instance.current.is_ready:
            grace = timedelta(seconds=1)
        lab.hypervisor.ensure_stopped(instance.name, grace=grace, cancel=None)
        lab.hypervisor.ensure_undefined(instance.name)
        reach("delete:undefined")
        for generation in instance.generations:
            discard_os_generation(
                generation_files(lab, view.name, instance.name, generation.number)
            )
        console_log(lab, view.name, instance.name).unlink(missing_ok=True)
        reach("delete:files")
        with lab.database.write() as connection:
            remove_instance(connection, instance.name)
        self._note(view, instance, EventKind.STEP, f"deleted, {action.reason}")

    def remove_scale_set(self, view: ScaleSet) -> None:
        """Forget a scale set whose last instance is gone; data disks stay where they are."""
        lab = self._lab
        if view.spec.network.type == "nat":
            lab.hypervisor.ensure_network_absent(network_name(view.name))
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

    def _connect(self, view: ScaleSet, instance: Instance, signal: Signal) -> SshConnection:
        known = self._connections.get(instance.name)
        if known is not None and known.is_alive:
            return known
        self._hang_up(instance.name)
        with self._lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
        wait = max(_RECONNECT, deadlines(self._lab, view.spec).ssh)
        made = wait_for_ssh(ssh_target(self._lab, identity), deadline=wait, cancel=signal.event)
        self._connections[instance.name] = made
        return made

    def _hang_up(self, instance: str) -> None:
        known = self._connections.pop(instance, None)
        if known is not None:
            known.close()

    def _fail(
        self, view: ScaleSet, instance: Instance, rung: Rung, message: str, detail: str = ""
    ) -> None:
        moment = now()
        with self._lab.database.write() as connection:
            save_failure(
                connection,
                instance.name,
                instance.generation,
                Failure(rung=rung, message=message, at=moment),
            )
            add_event(
                connection,
                at=moment,
                scale_set=view.name,
                instance=instance.name,
                upgrade=view.upgrade.id if view.upgrade else None,
                kind=EventKind.FAILURE,
                message=f"failed at {rung.value}: {message}" + (f"\n{detail}" if detail else ""),
            )

    def _note(self, view: ScaleSet, instance: Instance, kind: EventKind, message: str) -> None:
        with self._lab.database.write() as connection:
            add_event(
                connection,
                at=now(),
                scale_set=view.name,
                instance=instance.name,
                upgrade=view.upgrade.id if view.upgrade else None,
                kind=kind,
                message=message,
            )


def _generation(instance: Instance, number: int) -> Generation:
    found = instance.find_generation(number)
    if found is None:
        raise RuntimeError(f"{instance.name} has no OS generation {number}")
    return found


def _rung_of(action: Action, error: LabError) -> Rung:
    if isinstance(error, NotReadyError):
        return error.rung
    match action:
        case RunExtension():
            return Rung.EXTENSIONS
        case RerunCustomData():
            return Rung.CUSTOM_DATA
        case _:
            return Rung.POWER_ON


def _last_line(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
