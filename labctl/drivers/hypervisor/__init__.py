"""The one door to libvirt: domains and networks of labctl, and nobody else's."""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt

from labctl.drivers.domain import (
    METADATA_NAMESPACE,
    DomainConfig,
    DomainTag,
    build_domain_xml,
    read_domain_tag,
)
from labctl.drivers.hypervisor import console, networks
from labctl.drivers.hypervisor.connection import Connection, Listener
from labctl.drivers.hypervisor.failure import (
    PortTakenError,
    explain_start,
    is_absent,
)
from labctl.drivers.hypervisor.lifecycle import (
    DomainEvent,
    LifecycleKind,
    ObservedDomain,
    describe_state,
)
from labctl.drivers.network import NatNetworkConfig
from labctl.errors import HostError, NotFoundError, RefusedError
from labctl.model.instance import Power

__all__ = [
    "DomainEvent",
    "Hypervisor",
    "LifecycleKind",
    "ObservedDomain",
    "PortTakenError",
    "Stopped",
]

_PATIENCE = timedelta(seconds=20)
_BUTTON_EVERY = 5.0  # seconds; a guest that still boots does not hear the first press
_CANCEL_EVERY = 0.2  # seconds between looks at `cancel`
_ENDED = (LifecycleKind.STOPPED, LifecycleKind.CRASHED, LifecycleKind.UNDEFINED)
_KIB = 1024


class Stopped(StrEnum):
    """How a stop ended."""

    WAS_OFF = "was off"
    GRACEFUL = "graceful"
    FORCED = "forced"
    CANCELLED = "cancelled"  # asked to shut down, still running, not waited for


class Hypervisor:
    """libvirt at `uri`. Safe to share between threads; connects at the first call."""

    def __init__(
        self, uri: str, *, state_dir: Path | None = None, patience: timedelta = _PATIENCE
    ) -> None:
        """Touch only domains of `state_dir`; None: of any labctl.

        `patience` is how long calls wait for libvirtd to come back.
        """
        self.uri = uri
        self._state_dir = state_dir
        self._connection = Connection(uri, patience=patience)
        self._network_lock = threading.Lock()

    def close(self) -> None:
        """Close the connection; domains go on."""
        self._connection.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each lifecycle event of any domain; returns the way out.

        It is called in the event thread: it must be quick and must not call the hypervisor.
        """
        unsubscribe = self._connection.subscribe(listener)
        self._connection.call("subscribe to events", lambda _: None)
        return unsubscribe

    def list_domains(
        self, state_dir: Path, *, scale_set: str | None = None
    ) -> dict[str, ObservedDomain]:
        """The domains that labctl defined for `state_dir`, or for one scale set, by name."""

        def observe(connection: libvirt.virConnect) -> dict[str, ObservedDomain]:
            found: dict[str, ObservedDomain] = {}
            stats = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
            for domain, values in stats:
                # The tag costs a question for each domain; a daemon asks for every scale set.
                if scale_set not in {None, domain.name().rpartition("_")[0]}:
                    continue
                tag = _find_tag(domain, libvirt.VIR_DOMAIN_AFFECT_CURRENT)
                if tag is None or tag.state_dir != state_dir:
                    continue
                power, reason = describe_state(values["state.state"], values["state.reason"])
                found[domain.name()] = ObservedDomain(
                    name=domain.name(),
                    uuid=UUID(domain.UUIDString()),
                    generation=tag.generation,
                    config_hash=tag.config_hash,
                    power=power,
                    reason=reason,
                )
            return found

        return self._connection.call("list domains", observe)

    def ensure_defined(self, config: DomainConfig) -> bool:
        """Define the domain as `config` says. False: it was so already.

        A running domain goes on as it is; the new definition counts from its next start.
        Raises RefusedError for a foreign domain of that name, InvalidError for what libvirt
        refuses.
        """
        xml = build_domain_xml(config)

        def define(connection: libvirt.virConnect) -> bool:
            present = _find_domain(connection, config.name)
            if present is not None:
                if UUID(present.UUIDString()) != config.uuid:
                    raise _foreign(present, f"its UUID is {present.UUIDString()}")
                tag = self._check_owner(present, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
                if tag.config_hash == config.config_hash:
                    return False
            connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            return True

        # A log that virtlogd creates belongs to root, and a plain user could not read it.
        _touch(config.console_log)
        return self._connection.call(f"define {config.name!r}", define)

    def ensure_started(self, name: str) -> bool:
        """Power on, or go on where it was paused. False: it was running.

        Raises PortTakenError, HostError (disk missing or unreadable, no memory), NotFoundError.
        """

        def start(connection: libvirt.virConnect) -> bool:
            domain = self._load_owned(connection, name)
            power, _ = describe_state(*domain.state())
            if power is Power.RUNNING:
                return False
            if power is Power.PAUSED:
                domain.resume()
                return True
            # Only what panicked: one that is merely off may be starting elsewhere.
            if power is Power.CRASHED:
                _destroy(domain)
            try:
                domain.create()
            except libvirt.libvirtError as error:
                if domain.isActive():  # another thread was faster
                    return False
                raise explain_start(error, connection, domain) from error
            return True

        return self._connection.call(f"start {name!r}", start)

    def ensure_stopped(
        self, name: str, *, grace: timedelta, cancel: threading.Event | None = None
    ) -> Stopped:
        """Press the power button, wait up to `grace`, then cut the power.

        A guest that was paused, as by a full disk, is resumed once so that it can save its work.
        Setting `cancel` ends the waiting and leaves the domain to shut down by itself.
        """
        ended = threading.Event()

        def listen(event: DomainEvent) -> None:
            if event.kind is LifecycleKind.RESYNC or (event.name == name and event.kind in _ENDED):
                ended.set()

        deadline = time.monotonic() + grace.total_seconds()
        was_asked = was_resumed = False
        unsubscribe = self._connection.subscribe(listen)
        try:
            while True:
                ended.clear()  # before looking, so that no end is missed
                power = self._connection.call(f"look at {name!r}", lambda c: self._power(c, name))
                if power in (None, Power.STOPPED):
                    return Stopped.GRACEFUL if was_asked else Stopped.WAS_OFF
                left = deadline - time.monotonic()
                if power is Power.PAUSED and left > 0 and not was_resumed:
                    was_resumed = True
                    self._connection.call(f"resume {name!r}", lambda c: self._resume(c, name))
                    continue
                # A paused or panicked guest hears no button.
                if left <= 0 or power is not Power.RUNNING:
                    return self._cut_power(name, was_asked=was_asked)
                self._connection.call(f"shut down {name!r}", lambda c: self._press(c, name))
                was_asked = True
                if not _wait(ended, cancel, min(left, _BUTTON_EVERY)):
                    return Stopped.CANCELLED
        finally:
            unsubscribe()

    def ensure_undefined(self, name: str) -> bool:
        """Cut the power and remove the definition; no file is deleted. False: it was not there."""

        def undefine(connection: libvirt.virConnect) -> bool:
            domain = _find_domain(connection, name)
            if domain is None:
                return False
            self._check_owner(domain, libvirt.VIR_DOMAIN_AFFECT_CURRENT)
            _destroy(domain)
            domain.undefineFlags(
                libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                # It is a file of an OS generation, deleted with it.
                | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
            )
            return True

        return self._connection.call(f"undefine {name!r}", undefine)

    def open_console(self, name: str, stdin_fd: int, stdout_fd: int) -> None:
        """Connect two file descriptors to the serial console until Ctrl-] or the domain's end.

        Raises RefusedError when the domain is off, LabError when somebody else is connected.
        """

        def talk(connection: libvirt.virConnect) -> None:
            domain = self._load_owned(connection, name)
            if not domain.isActive():
                raise RefusedError(
                    f"{name!r} is not running", hint=f"run: labctl instance start {name}"
                )
            console.talk(connection, domain, stdin_fd, stdout_fd)

        self._connection.converse(f"open the console of {name!r}", talk)

    def ensure_network(self, config: NatNetworkConfig) -> bool:
        """Define and start a network, update its DHCP hosts live. False: nothing to do.

        Raises RefusedError for a foreign network of that name or another subnet.
        """
        # Two at once would both add what both found missing.
        with self._network_lock:
            return self._connection.call(
                f"set up network {config.name!r}", lambda c: networks.ensure_network(c, config)
            )

    def ensure_network_absent(self, name: str, *, uuid: UUID) -> bool:
        """Remove a network of ours. False: it was not there. RefusedError: not our UUID."""
        return self._connection.call(
            f"remove network {name!r}", lambda c: networks.ensure_network_absent(c, name, uuid)
        )

    def host_free_memory(self) -> int:
        """Bytes that new domains can take: free memory and what the page cache would give back."""

        def measure(connection: libvirt.virConnect) -> int:
            # A dict of KiB, whatever the binding's annotation says.
            stats: Any = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
            return sum(int(stats.get(name, 0)) for name in ("free", "buffers", "cached")) * _KIB

        return self._connection.call("measure the host's memory", measure)

    def _power(self, connection: libvirt.virConnect, name: str) -> Power | None:
        domain = _find_domain(connection, name)
        if domain is None:
            return None
        self._check_owner(domain, libvirt.VIR_DOMAIN_AFFECT_CURRENT)
        if not domain.isActive():
            return Power.STOPPED  # whatever ended it
        return describe_state(*domain.state())[0]

    def _resume(self, connection: libvirt.virConnect, name: str) -> None:
        domain = _find_domain(connection, name)
        if domain is not None:
            # Where it does not go on, the caller sees that it is still paused.
            with contextlib.suppress(libvirt.libvirtError):
                domain.resume()

    def _press(self, connection: libvirt.virConnect, name: str) -> None:
        domain = _find_domain(connection, name)
        if domain is None:
            return
        try:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError as error:
            # Not running: the guest has just powered off, and libvirtd, perhaps back from a
            # restart, is about to clean up after it. The caller looks again.
            is_over = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
            if not is_over and domain.isActive():
                raise

    def _cut_power(self, name: str, *, was_asked: bool) -> Stopped:
        def destroy(connection: libvirt.virConnect) -> Stopped:
            if _destroy(self._load_owned(connection, name)):
                return Stopped.FORCED
            return Stopped.GRACEFUL if was_asked else Stopped.WAS_OFF

        return self._connection.call(f"cut the power of {name!r}", destroy)

    def _load_owned(self, connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
        domain = _find_domain(connection, name)
        if domain is None:
            raise NotFoundError(f"no domain {name!r} on {self.uri}", hint="run: labctl apply")
        self._check_owner(domain, libvirt.VIR_DOMAIN_AFFECT_CURRENT)
        return domain

    def _check_owner(self, domain: libvirt.virDomain, scope: int) -> DomainTag:
        tag = _find_tag(domain, scope)
        if tag is None:
            raise _foreign(domain, "it does not carry labctl's mark")
        if self._state_dir is not None and tag.state_dir != self._state_dir:
            raise _foreign(domain, f"it belongs to state directory {str(tag.state_dir)!r}")
        return tag


def _find_domain(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if is_absent(error):
            return None
        raise


def _find_tag(domain: libvirt.virDomain, scope: int) -> DomainTag | None:
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE, scope)
    except libvirt.libvirtError as error:
        if is_absent(error):
            return None
        raise
    return read_domain_tag(text)


def _destroy(domain: libvirt.virDomain) -> bool:
    """Cut the power. False: it was off."""
    if not domain.isActive():
        return False
    try:
        domain.destroy()
    except libvirt.libvirtError:
        # A libvirtd that has just restarted kills QEMU, loses the race against its own clean-up
        # of the domain, and then says that the domain was not running.
        if domain.isActive():
            raise
    return True


def _foreign(domain: libvirt.virDomain, why: str) -> RefusedError:
    name = domain.name()
    return RefusedError(
        f"domain {name!r} exists and is not labctl's here; it is left alone",
        detail=why,
        hint=f"rename the scale set, or rename the domain: virsh domrename {name} <other>",
    )


def _wait(ended: threading.Event, cancel: threading.Event | None, seconds: float) -> bool:
    """False: `cancel` was set meanwhile."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if cancel is not None and cancel.is_set():
            return False
        if ended.wait(left if cancel is None else min(left, _CANCEL_EVERY)):
            break
    return True


def _touch(log: Path) -> None:
    try:
        log.touch(mode=0o600)
    except OSError as error:
        raise HostError(
            f"cannot write console log {str(log)!r}",
            detail=error.strerror or str(error),
            hint="check the directory, or run: labctl doctor",
        ) from error
