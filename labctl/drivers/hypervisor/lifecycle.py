"""libvirt's numbers for states and events, in labctl's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import libvirt

from labctl.model.instance import Power


class LifecycleKind(StrEnum):
    """What happened to a domain."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    SHUTDOWN = "shutdown"  # the guest has powered off, QEMU has not ended yet
    STOPPED = "stopped"
    CRASHED = "crashed"  # QEMU died, or the guest panicked (detail "panicked")
    RESYNC = "resync"  # the connection was lost and is back: events may be missing, look again


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """One lifecycle event. `name` is empty for RESYNC."""

    name: str
    kind: LifecycleKind
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDomain:
    """A domain of ours. A running one is described as it runs, not as it was redefined since."""

    name: str
    uuid: UUID
    generation: int
    config_hash: str
    power: Power
    reason: str  # libvirt's reason for the state: "booted", "shutdown", "crashed", "panicked"


_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.RUNNING,  # its disks are still open
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
}

_REASON_PREFIX = {
    libvirt.VIR_DOMAIN_RUNNING: "VIR_DOMAIN_RUNNING_",
    libvirt.VIR_DOMAIN_PAUSED: "VIR_DOMAIN_PAUSED_",
    libvirt.VIR_DOMAIN_SHUTDOWN: "VIR_DOMAIN_SHUTDOWN_",
    libvirt.VIR_DOMAIN_SHUTOFF: "VIR_DOMAIN_SHUTOFF_",
    libvirt.VIR_DOMAIN_CRASHED: "VIR_DOMAIN_CRASHED_",
}

_KIND = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: LifecycleKind.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: LifecycleKind.UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: LifecycleKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: LifecycleKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: LifecycleKind.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: LifecycleKind.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: LifecycleKind.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: LifecycleKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: LifecycleKind.CRASHED,
}


def _names(prefix: str) -> Mapping[int, str]:
    """Name the constants of libvirt with this prefix: {4: "crashed"} for VIR_DOMAIN_SHUTOFF_."""
    return {
        value: name.removeprefix(prefix).lower().replace("_", " ")
        for name, value in vars(libvirt).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


_REASONS = {state: _names(prefix) for state, prefix in _REASON_PREFIX.items()}
_DETAILS = {
    event: _names(f"VIR_DOMAIN_EVENT_{word}_")
    for event, word in {
        libvirt.VIR_DOMAIN_EVENT_STARTED: "STARTED",
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "SUSPENDED",
        libvirt.VIR_DOMAIN_EVENT_STOPPED: "STOPPED",
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "SHUTDOWN",
        libvirt.VIR_DOMAIN_EVENT_CRASHED: "CRASHED",
    }.items()
}


# QEMU that was killed is reported as "failed".
_CRASHES = (libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)


def describe_state(state: int, reason: int) -> tuple[Power, str]:
    """Translate what `virDomainGetState` answers."""
    # Off because QEMU died is off; what panicked has a QEMU that is to be ended.
    text = _REASONS.get(state, {}).get(reason, "")
    # Every start begins paused; whoever sees that must not resume it.
    if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        return Power.RUNNING, text
    return _POWER.get(state, Power.UNKNOWN), text


def describe_event(name: str, event: int, detail: int) -> DomainEvent | None:
    """Translate a lifecycle event; None for kinds that later versions of libvirt add."""
    kind = _KIND.get(event)
    if kind is None:
        return None
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail in _CRASHES:
        kind = LifecycleKind.CRASHED
    return DomainEvent(name=name, kind=kind, detail=_DETAILS.get(event, {}).get(detail, ""))
