"""`properties.labctl`: what Azure has no place for, strictly in the shape of the YAML spec."""

from collections.abc import Mapping

from labctl.arm.errors import Document
from labctl.arm.faults import Faults

LABCTL = "properties.labctl"
_UPGRADE_KEYS = ("healthTimeout", "maintenanceWindows", "approval", "canary", "hooks")
_ANY = None  # the model checks what is below

# What may stand there. Whatever has a place of its own in ARM is not among it.
Shape = Mapping[str, "Shape | None"]
SHAPE: Shape = {
    "updateDomainCount": _ANY,
    "network": _ANY,
    "timeouts": _ANY,
    "notifications": _ANY,
    "clusterManager": _ANY,
    "sshKeys": _ANY,  # of Windows instances
    "osDisk": {"size": _ANY},
    "dataDisks": {"name": _ANY, "size": _ANY, "fileSystem": _ANY, "mountPoint": _ANY},
    "extensions": {"name": _ANY, "timeout": _ANY},
    "health": {"probe": _ANY, "applicationHealth": {"interval": _ANY, "gracePeriod": _ANY}},
    "windowsConfiguration": {"drivers": _ANY},
    "upgradePolicy": dict.fromkeys(_UPGRADE_KEYS, _ANY),
}
LISTS = ("dataDisks", "extensions")


def pick_plain(dump: Document, *, is_windows: bool) -> Document:
    """The part of a dumped spec that goes there as it is: neither sizes, disks nor extensions."""
    keys = ("updateDomainCount", "network", "timeouts", "notifications", "clusterManager")
    part: Document = {key: dump[key] for key in keys if key in dump}
    if is_windows and "sshKeys" in dump:
        part["sshKeys"] = dump["sshKeys"]
    policy = _pick(dump.get("upgradePolicy"), _UPGRADE_KEYS)
    if policy:
        part["upgradePolicy"] = policy
    windows = _pick(dump.get("windowsConfiguration"), ("drivers",))
    if windows:
        part["windowsConfiguration"] = windows
    return part


def _pick(value: object, keys: tuple[str, ...]) -> Document:
    return {key: value[key] for key in keys if key in value} if isinstance(value, dict) else {}


def check_shape(part: Document, faults: Faults) -> Document:
    """The part with only what may stand there, after noting the rest."""
    return _check(part, SHAPE, LABCTL, faults)


def _check(value: Document, shape: Shape, at: str, faults: Faults) -> Document:
    found: Document = {}
    for key, each in value.items():
        path = f"{at}.{key}"
        if key not in shape:
            faults.note(
                path,
                "is unknown, or has a place of its own outside of properties.labctl; known here: "
                f"{', '.join(shape)}.",
            )
            continue
        inner = shape[key]
        if inner is _ANY:
            found[key] = each
        elif key in LISTS:
            found[key] = [
                _check(entry, inner, f"{path}[{place}]", faults)
                for place, item in enumerate(faults.list(each, path) or [])
                if (entry := faults.mapping(item, f"{path}[{place}]")) is not None
            ]
        else:
            found[key] = _check(faults.mapping(each, path) or {}, inner, path, faults)
    return found
