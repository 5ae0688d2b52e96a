"""Names of VM sizes: the well-known ones of Azure, and `Lab_VCPUS_MIB` for all others."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from labctl.model.machine import GIB, MIB, MachineSize

_LAB = re.compile(r"lab_([1-9][0-9]{0,3})_([1-9][0-9]{0,8})", re.IGNORECASE | re.ASCII)


def _size(vcpus: int, gibibytes: float) -> MachineSize:
    return MachineSize.model_construct(vcpus=vcpus, memory=int(gibibytes * GIB))


# Azure's own numbers. Sizes that differ only in disks, cards or processors mean the same here.
AZURE_SIZES: Mapping[str, MachineSize] = MappingProxyType(
    {
        "Standard_A1_v2": _size(1, 2),
        "Standard_A2_v2": _size(2, 4),
        "Standard_A4_v2": _size(4, 8),
        "Standard_A8_v2": _size(8, 16),
        "Standard_B1ls": _size(1, 0.5),
        "Standard_B1s": _size(1, 1),
        "Standard_B1ms": _size(1, 2),
        "Standard_B2s": _size(2, 4),
        "Standard_B2ms": _size(2, 8),
        "Standard_B4ms": _size(4, 16),
        "Standard_B8ms": _size(8, 32),
        "Standard_B12ms": _size(12, 48),
        "Standard_B16ms": _size(16, 64),
        "Standard_B2ts_v2": _size(2, 1),
        "Standard_B2ls_v2": _size(2, 4),
        "Standard_B2s_v2": _size(2, 8),
        "Standard_B4s_v2": _size(4, 16),
        "Standard_DS1_v2": _size(1, 3.5),
        "Standard_DS2_v2": _size(2, 7),
        "Standard_DS3_v2": _size(4, 14),
        "Standard_DS4_v2": _size(8, 28),
        "Standard_DS5_v2": _size(16, 56),
        "Standard_D1_v2": _size(1, 3.5),
        "Standard_D2_v2": _size(2, 7),
        "Standard_D3_v2": _size(4, 14),
        "Standard_D4_v2": _size(8, 28),
        **{
            f"Standard_{letter}{vcpus}{variant}": _size(vcpus, vcpus * memory)
            for letter, memory, variants in (
                ("D", 4, ("s_v3", "_v3", "s_v4", "_v4", "s_v5", "_v5", "as_v4", "as_v5", "ads_v5")),
                ("E", 8, ("s_v3", "_v3", "s_v4", "_v4", "s_v5", "_v5", "as_v5")),
                ("F", 2, ("s_v2",)),
            )
            for variant in variants
            for vcpus in (2, 4, 8, 16, 32, 64)
        },
        "Standard_F1s": _size(1, 2),
        "Standard_F2s": _size(2, 4),
        "Standard_F4s": _size(4, 8),
        "Standard_F8s": _size(8, 16),
    }
)
_FOLDED = {name.lower(): size for name, size in AZURE_SIZES.items()}


def find_size(name: str) -> MachineSize | None:
    """What a name means, in any case; None: no such size. Bounds are the model's to check."""
    match = _LAB.fullmatch(name)
    if match:
        vcpus, mebibytes = map(int, match.groups())
        return MachineSize.model_construct(vcpus=vcpus, memory=mebibytes * MIB)
    return _FOLDED.get(name.lower())


def name_size(size: MachineSize, kept: object = None) -> str:
    """The name that a client gave while it still means this size; else `Lab_VCPUS_MIB`."""
    if isinstance(kept, str) and find_size(kept) == size:
        return kept
    return f"Lab_{size.vcpus}_{size.memory // MIB}"
