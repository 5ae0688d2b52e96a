"""libvirt's errors, translated by their code into labctl's."""

import os
import pwd
import re
import socket
from xml.etree import ElementTree as ET

import libvirt

from labctl.errors import (
    HostError,
    InstanceHostError,
    InvalidError,
    LabError,
    NotFoundError,
    RefusedError,
    TimedOutError,
)

DOCTOR = "run: labctl doctor"

_KINDS: dict[int, tuple[type[LabError], str]] = {
    libvirt.VIR_ERR_NO_CONNECT: (HostError, DOCTOR),
    libvirt.VIR_ERR_INVALID_CONN: (HostError, DOCTOR),
    libvirt.VIR_ERR_RPC: (HostError, DOCTOR),
    libvirt.VIR_ERR_SYSTEM_ERROR: (HostError, DOCTOR),
    libvirt.VIR_ERR_NO_MEMORY: (HostError, "free memory or lower the capacity"),
    libvirt.VIR_ERR_AUTH_FAILED: (HostError, f"join the group libvirt, or {DOCTOR}"),
    libvirt.VIR_ERR_AUTH_CANCELLED: (HostError, f"join the group libvirt, or {DOCTOR}"),
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: (HostError, f"join the group libvirt, or {DOCTOR}"),
    libvirt.VIR_ERR_ACCESS_DENIED: (HostError, f"join the group libvirt, or {DOCTOR}"),
    libvirt.VIR_ERR_OPERATION_DENIED: (HostError, DOCTOR),
    libvirt.VIR_ERR_NO_SUPPORT: (HostError, "this hypervisor cannot do it; choose another --uri"),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: (HostError, f"QEMU here cannot do it; {DOCTOR}"),
    libvirt.VIR_ERR_NO_DOMAIN: (NotFoundError, "run: labctl apply"),
    libvirt.VIR_ERR_NO_NETWORK: (NotFoundError, "run: labctl apply"),
    libvirt.VIR_ERR_DOM_EXIST: (RefusedError, "rename or remove the other one"),
    libvirt.VIR_ERR_NETWORK_EXIST: (RefusedError, "rename or remove the other one"),
    libvirt.VIR_ERR_OPERATION_INVALID: (RefusedError, "look at its state: labctl instance list"),
    libvirt.VIR_ERR_RESOURCE_BUSY: (TimedOutError, "try again; something else works on it"),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: (TimedOutError, "try again; something else works on it"),
    libvirt.VIR_ERR_XML_ERROR: (InvalidError, "look for odd characters in names and paths"),
    libvirt.VIR_ERR_XML_DETAIL: (InvalidError, "look for odd characters in names and paths"),
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: (
        InvalidError,
        "look for odd characters in names and paths",
    ),
    libvirt.VIR_ERR_INVALID_ARG: (InvalidError, "look for odd characters in names and paths"),
}

_FORWARD = re.compile(r"host forwarding rule 'tcp:127\.0\.0\.1:(\d+)-")
_FORWARD_ARGUMENT = re.compile(r"hostfwd=tcp:127\.0\.0\.1:(\d+)-")
_PATHS = (
    re.compile(r"Path '(?P<path>/.+)' is not accessible: "),
    re.compile(r"Cannot access (?:storage|backing) file '(?P<path>.+?)' ?(?:\(|of |:|$)"),
    re.compile(r"Could not open '(?P<path>.+?)': (?P<why>[A-Z].*)"),
    re.compile(r"unable to set user and group to '.*?' on '(?P<path>.+?)': (?P<why>.*)"),
    re.compile(
        r"(?:Failed|Unable) to (?:stat|open|get attributes of) '?(?P<path>/.+?)'?: (?P<why>.*)"
    ),
)


class PortTakenError(LabError):
    """Another program listens on ports that were to be forwarded; choose others."""

    def __init__(self, brief: str, *, ports: frozenset[int], detail: str = "") -> None:
        super().__init__(brief, detail=detail, hint="labctl chooses others when it tries again")
        self.ports = ports


def translate(error: libvirt.libvirtError, doing: str) -> LabError:
    """`doing` is what failed, for the first line: "start web_3"."""
    code = error.get_error_code()
    kind, hint = _KINDS.get(code if code is not None else -1, (LabError, DOCTOR))
    return kind(f"libvirt could not {doing}", detail=_message(error), hint=hint)


def unreachable(error: libvirt.libvirtError, uri: str) -> HostError:
    """Say that the hypervisor does not answer."""
    known = _KINDS.get(error.get_error_code() or -1)
    hint = known[1] if known is not None else DOCTOR
    return HostError(f"hypervisor {uri!r} does not answer", detail=_message(error), hint=hint)


def is_absent(error: libvirt.libvirtError) -> bool:
    """Is it that a domain, a network or a mark in a domain does not exist?"""
    return error.get_error_code() in (
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_DOMAIN_METADATA,
    )


def explain_start(
    error: libvirt.libvirtError, connection: libvirt.virConnect, domain: libvirt.virDomain
) -> LabError:
    """Why a domain did not start, where the message tells."""
    message = _message(error)
    name = domain.name()
    ports = frozenset(int(port) for port in _FORWARD.findall(message))
    if ports:
        return _port_taken(domain, ports)
    if "lock" in message and "Failed to get" in message:
        return InstanceHostError(
            f"cannot start {name!r}: one of its disks is in use by another program",
            detail=message,
            hint="find it with: lsof <disk>",
        )
    match = next((match for pattern in _PATHS if (match := pattern.search(message))), None)
    if match is not None:
        user = _qemu_user(connection)
        # libvirtd may see what we cannot, so its words count, not a look of ours.
        return InstanceHostError(
            f"cannot start {name!r}: file {match['path']!r} is missing or unreadable",
            detail=f"QEMU runs as user {user!r}; libvirt says: {message}",
            hint=f"check that it exists and that {user!r} may pass every directory above it",
        )
    if "Cannot allocate memory" in message:
        return HostError(
            f"cannot start {name!r}: not enough memory",
            detail=message,
            hint="free memory or lower the capacity",
        )
    return translate(error, f"start {name!r}")


def _port_taken(domain: libvirt.virDomain, ports: frozenset[int]) -> PortTakenError:
    # QEMU names the first port only; a retry for each of three would cost three starts.
    forwards = (int(port) for port in _FORWARD_ARGUMENT.findall(domain.XMLDesc(0)))
    taken = ports | {port for port in forwards if _is_taken(port)}
    name = domain.name()
    listed = ", ".join(str(port) for port in sorted(taken))
    return PortTakenError(
        f"cannot start {name!r}: port {listed} on 127.0.0.1 is taken", ports=taken
    )


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _qemu_user(connection: libvirt.virConnect) -> str:
    root = ET.fromstring(connection.getCapabilities())  # noqa: S314 - from libvirt
    for model in root.iterfind("host/secmodel"):
        label = model.findtext("baselabel", "")
        if model.findtext("model") == "dac" and label.startswith("+"):
            user_id = int(label.removeprefix("+").split(":")[0])
            try:
                return pwd.getpwuid(user_id).pw_name
            except KeyError:
                return str(user_id)
    return pwd.getpwuid(os.geteuid()).pw_name  # a session: QEMU runs as its user


def _message(error: libvirt.libvirtError) -> str:
    return (error.get_error_message() or str(error)).strip()
