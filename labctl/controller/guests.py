"""Talks to guests over SSH: readiness, extensions, custom data."""

from datetime import timedelta

from labctl.controller.build import (
    console_log,
    deadlines,
    ssh_target,
)
from labctl.controller.clock import now
from labctl.controller.extensions import last_line, run_one
from labctl.controller.hooks import run_hook
from labctl.controller.journal import fail, note
from labctl.controller.lab import Lab
from labctl.controller.signals import Signal
from labctl.drivers.extension import rerun_custom_data
from labctl.drivers.failpoint import reach
from labctl.drivers.probe import warm_up
from labctl.drivers.readiness import climb
from labctl.drivers.ssh import SshConnection, wait_for_ssh
from labctl.model.event import EventKind
from labctl.model.instance import (
    Failure,
    Generation,
    Instance,
    Rung,
)
from labctl.model.plan import (
    RunExtension,
    RunHook,
    ScaleSet,
)
from labctl.store.instances import (
    change_generation,
    change_instance,
    find_console_offset,
    load_identity,
    save_failure,
)

_RECONNECT = timedelta(seconds=60)


class Guests:
    """The connections of one reconciler; one thread at a time for each instance."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._connections: dict[str, SshConnection] = {}

    def close(self) -> None:
        """Hang up. A script that runs in a guest goes on there."""
        while self._connections:
            self._connections.popitem()[1].close()

    def connection(self, instance: str) -> SshConnection | None:
        """The open connection, if there is one."""
        return self._connections.get(instance)

    def await_ready(
        self, view: ScaleSet, instance: Instance, generation: Generation, signal: Signal
    ) -> None:
        """Climb the readiness ladder; the connection is kept for what follows."""
        lab = self._lab
        model = view.models[generation.model_revision]
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
            offset = find_console_offset(connection, instance.name, generation.number)
        self.hang_up(instance.name)
        warm_up()  # it will be asked for its health as soon as it is up
        report = climb(
            ssh_target(lab, identity, is_windows=model.is_windows),
            console_log=console_log(lab, view.name, instance.name),
            console_offset=offset,
            deadlines=deadlines(lab, model),
            failed=signal,
            on_rung=lambda _rung, text: note(
                self._lab.database, view, instance, EventKind.RUNG, text
            ),
        )
        self._connections[instance.name] = report.connection
        reach("ready:climbed")
        with lab.database.write() as connection:
            change_generation(connection, instance.name, generation.number, ready_at=now())
            save_failure(connection, instance.name, generation.number, None)
        if report.warning:
            note(self._lab.database, view, instance, EventKind.WARNING, report.warning)

    def run_extension(
        self, view: ScaleSet, instance: Instance, action: RunExtension, signal: Signal
    ) -> None:
        """Run one extension to its end, or take up the run that is under way."""
        run_one(
            self._lab,
            view,
            instance,
            action,
            lambda: self._connect(view, instance, signal),
            signal,
        )

    def run_hook(self, view: ScaleSet, instance: Instance, action: RunHook, signal: Signal) -> None:
        """Drain an instance or put it back to work."""
        run_hook(
            self._lab,
            view,
            instance,
            action,
            lambda limit: self._connect(view, instance, signal, limit=limit),
            signal,
        )

    def rerun_custom_data(self, view: ScaleSet, instance: Instance, signal: Signal) -> None:
        """Run the custom data once more on the same OS disk."""
        asked_at = instance.rerun_custom_data_asked_at or now()
        result = rerun_custom_data(
            self._connect(view, instance, signal),
            # The key says which wish this is: a controller that dies does not make it two.
            run_key=f"{asked_at:%Y%m%d%H%M%S%f}",
            timeout=deadlines(self._lab, view.spec).custom_data,
            check=signal.check,
        )
        with self._lab.database.write() as transaction:
            change_instance(transaction, instance.name, rerun_custom_data_asked_at=None)
            if result.has_succeeded:
                number = instance.generation
                save_failure(transaction, instance.name, number, None)
                if not instance.current.is_ready:
                    change_generation(transaction, instance.name, number, ready_at=now())
            else:
                failure = Failure(rung=Rung.CUSTOM_DATA, message="it failed again", at=now())
                save_failure(transaction, instance.name, instance.generation, failure)
        if result.has_succeeded:
            note(self._lab.database, view, instance, EventKind.RUNG, "custom data ran again")
        else:
            output = last_line(result.stderr or result.stdout)
            fail(
                self._lab.database,
                view,
                instance,
                Rung.CUSTOM_DATA,
                f"custom data ended with exit code {result.exit_code}: {output}",
            )

    def _connect(
        self,
        view: ScaleSet,
        instance: Instance,
        signal: Signal,
        *,
        limit: timedelta = timedelta.max,
    ) -> SshConnection:
        known = self._connections.get(instance.name)
        if known is not None and known.is_open:
            return known
        self.hang_up(instance.name)
        with self._lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
        wait = max(_RECONNECT, min(deadlines(self._lab, view.spec).ssh, limit))
        target = ssh_target(self._lab, identity, is_windows=view.spec.is_windows)
        made = wait_for_ssh(target, deadline=wait, cancel=signal.event)
        self._connections[instance.name] = made
        return made

    def hang_up(self, instance: str) -> None:
        """Close the connection, if there is one."""
        known = self._connections.pop(instance, None)
        if known is not None:
            known.close()
