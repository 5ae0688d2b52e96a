"""What an instance is made of: processors, memory, image and disks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from labctl.model.quantity import Size
from labctl.model.strict import Strict

MIB = 2**20
GIB = 2**30
TIB = 2**40
NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
MOUNT_PATTERN = r"^(/[A-Za-z0-9._/-]+|[E-Z]:)$"  # C: is the OS disk, D: is often a CD-ROM
DISK_NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$"  # a virtio serial holds 20 characters


def _require_whole_mebibytes(size: int) -> int:
    if size % MIB:
        raise ValueError("must be a whole number of MiB")
    return size


DiskSize = Annotated[Size, Field(ge=MIB, le=64 * TIB), AfterValidator(_require_whole_mebibytes)]
MemorySize = Annotated[
    Size, Field(ge=64 * MIB, le=4 * TIB), AfterValidator(_require_whole_mebibytes)
]


class MachineSize(Strict):
    """Processors and memory of each instance."""

    vcpus: int = Field(default=1, ge=1, le=64)
    memory: MemorySize = 512 * MIB


class ImageReference(Strict):
    """Which image version to run."""

    definition: str = Field(pattern=NAME_PATTERN)
    version: str = Field(default="latest", pattern=r"^(latest|\d+\.\d+\.\d+)$")


class OsDisk(Strict):
    """The disk that an image upgrade replaces."""

    size: DiskSize | None = Field(
        default=None, description="At least the image's size; default: equal"
    )


class DataDisk(Strict):
    """A disk that outlives every OS disk."""

    name: str = Field(pattern=DISK_NAME_PATTERN)
    size: DiskSize
    file_system: Literal["ext4", "ntfs"] | None = Field(
        default=None, description="Made on an empty disk; a disk that holds anything is left as is"
    )
    mount_point: str | None = Field(
        default=None,
        pattern=MOUNT_PATTERN,
        description="A path; for Windows a drive letter, such as E:",
    )

    @field_validator("mount_point")
    @classmethod
    def _require_clean_path(cls, path: str | None) -> str | None:
        is_path = path is not None and path.startswith("/")
        if path is not None and is_path and {"", ".", ".."} & set(path[1:].split("/")):
            raise ValueError("must be an absolute path without '.', '..', '//' or a '/' at its end")
        return path
