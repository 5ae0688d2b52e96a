"""What a change of the model needs, field by field, until an instance has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from labctl.model.health_source import Health, HealthProbe
from labctl.model.machine import DataDisk
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec


class Need(StrEnum):
    """What an instance must go through, from the least to the most."""

    NOTHING = "Nothing"
    RERUN_EXTENSIONS = "RerunExtensions"  # it goes on running
    RESTART = "Restart"  # the same OS disk
    OS_SWAP = "OsSwap"  # a new OS disk; data disks stay
    RECREATE = "Recreate"  # no instance can be brought there; `apply` refuses it

    @property
    def rank(self) -> int:
        """The more, the greater."""
        return tuple(Need).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What one changed field needs."""

    field: str  # as the spec writes it
    need: Need
    reason: str
    reruns: tuple[str, ...] = ()  # extensions that run again, or for the first time


# They hold at once for every instance, so that a change of them makes no new revision.
LIVE_FIELDS = frozenset(
    {
        "automatic_repairs_policy",
        "capacity",
        "cluster_manager",
        "notifications",
        "region",
        "scale_in_policy",
        "timeouts",
        "upgrade_policy",
    }
)
# They say where each instance belongs.
PLACE_FIELDS = ("zones", "fault_domain_count", "update_domain_count")
_NO_INSTANCE = "it is about the scale set, not about its instances"
_SWAPPED = "it takes effect on a new OS disk"
# Other fields of an extension say when and how long it runs, not what.
_SCHEDULE = frozenset({"name", "timeout", "provision_after_extensions", "suppress_failures"})


def find_impacts(old: ScaleSetSpec, new: ScaleSetSpec) -> tuple[Impact, ...]:
    """One entry for each field of the spec that differs, in the order of the spec."""
    return tuple(
        _find_impact(name, old, new)
        for name in ScaleSetSpec.model_fields
        if getattr(old, name) != getattr(new, name)
    )


def find_need(impacts: Sequence[Impact]) -> Need:
    """What the whole change needs: the most that one of its fields does."""
    # customData and size: the new OS disk is booted with the new size, so one OS swap does both.
    return max((each.need for each in impacts), key=lambda need: need.rank, default=Need.NOTHING)


def _find_impact(name: str, old: ScaleSetSpec, new: ScaleSetSpec) -> Impact:
    field = ScaleSetSpec.model_fields[name].alias or name
    reruns: tuple[str, ...] = ()
    match name:
        case "size":
            need, reason = Need.RESTART, "processors and memory are given at power-on"
        case "custom_data":
            need, reason = Need.OS_SWAP, "custom data runs once on each new OS disk"
        case "image" | "os_disk":
            need, reason = Need.OS_SWAP, "the OS disk is made from it"
        case "ssh_keys":
            need, reason = Need.OS_SWAP, "a key that was taken away must not stay behind"
        case "data_disks":
            need, reason = _judge_data_disks(old.data_disks, new.data_disks)
        case "extensions":
            need, reason, reruns = _judge_extensions(old.extensions, new.extensions)
        case "health":
            need, reason = _judge_health(old, new)
        case "windows_configuration":
            need, reason = Need.OS_SWAP, "cloudbase-init sets a new OS disk up with it"
        case "network" | "name":
            need, reason = Need.RECREATE, "it is chosen when the scale set is made"
        case _ if name in PLACE_FIELDS:
            need, reason = Need.RECREATE, "every instance has its place from the beginning"
        case "extensions_time_budget":
            need, reason = Need.NOTHING, "it bounds the extensions that run from now on"
        case _ if name in LIVE_FIELDS:
            need, reason = Need.NOTHING, _NO_INSTANCE
        case _:
            # A field that is not known here: a new OS disk takes in everything.
            need, reason = Need.OS_SWAP, _SWAPPED
    return Impact(field=field, need=need, reason=reason, reruns=reruns)


def _judge_data_disks(old: Sequence[DataDisk], new: Sequence[DataDisk]) -> tuple[Need, str]:
    before = {disk.name: disk for disk in old}
    after = {disk.name: disk for disk in new}
    for name, disk in before.items():
        if name not in after:
            return Need.RECREATE, f"data disk {name!r} would be taken away, with what is on it"
        if after[name].size != disk.size:
            return Need.RECREATE, f"data disk {name!r} would change its size"
    for name, disk in before.items():
        if after[name] != disk:
            return Need.OS_SWAP, f"the old OS disk mounts {name!r} as before"
    added = ", ".join(repr(name) for name in after if name not in before)
    if added:
        return Need.RESTART, f"{added} added; disks are attached at power-on"
    return Need.NOTHING, "only their order in the spec has changed"


def _judge_extensions(
    old: Sequence[Extension], new: Sequence[Extension]
) -> tuple[Need, str, tuple[str, ...]]:
    before = {extension.name: _content(extension) for extension in old}
    reruns = tuple(e.name for e in new if before.get(e.name) != _content(e))
    if reruns:
        return Need.RERUN_EXTENSIONS, f"to run: {', '.join(reruns)}", reruns
    gone = [e.name for e in old if e.name not in {each.name for each in new}]
    if gone:
        reason = f"{', '.join(gone)} taken out; what it did stays until the next OS disk"
        return Need.NOTHING, reason, ()
    return Need.NOTHING, "none does anything else than before", ()


def _content(extension: Extension) -> dict[str, object]:
    # Not from a dump: that masks protected settings, and a renewed credential is a change.
    names = (name for name in Extension.model_fields if name not in _SCHEDULE)
    return {name: getattr(extension, name) for name in names}


def _judge_health(old: ScaleSetSpec, new: ScaleSetSpec) -> tuple[Need, str]:
    if old.health.application_health != new.health.application_health:
        return Need.OS_SWAP, "the agent in the guest is configured with the OS disk"
    is_forwarded = new.network.type == "user"
    if is_forwarded and _find_port(old.health) != _find_port(new.health):
        return Need.RESTART, "the port that is asked is forwarded at power-on"
    return Need.NOTHING, "the controller asks otherwise from now on"


def _find_port(health: Health) -> int | None:
    probe: HealthProbe | None = health.probe
    return None if probe is None else probe.port
