"""Image definitions and their versions."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from typing_extensions import override

from labctl.errors import InvalidError

LATEST = "latest"
_VERSION = re.compile(r"(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})")
_MAX = 2**31 - 1  # each part is a 32-bit integer in Azure's galleries


@dataclass(frozen=True, slots=True, order=True)
class VersionNumber:
    """`Major.Minor.Patch`, compared as numbers: 1.10.0 is newer than 1.9.0."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidError for anything but three plain 32-bit integers."""
        match = _VERSION.fullmatch(text)
        if match is None or any(int(part) > _MAX for part in match.groups()):
            raise InvalidError(
                f"image version {text!r} is not Major.Minor.Patch",
                hint="use three whole numbers, for example 1.4.0",
            )
        major, minor, patch = (int(part) for part in match.groups())
        return cls(major, minor, patch)

    @override
    def __str__(self) -> str:
        """Give back the text that `parse` takes."""
        return f"{self.major}.{self.minor}.{self.patch}"


class OsType(StrEnum):
    """What a kind of image is, as far as labctl prepares it in another way."""

    LINUX = "linux"  # cloud-init, or what reads its seed
    FLATCAR = "flatcar"  # Ignition
    FEDORA_COREOS = "fedora-coreos"  # Ignition
    WINDOWS = "windows"  # cloudbase-init


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDefinition:
    """A kind of image; its versions replace one another."""

    name: str
    os_type: OsType
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """That a version may be used in a region."""

    region: str
    replicated_at: datetime
    excluded_from_latest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVersion:
    """One immutable image of a definition. The file is found by its digest."""

    definition: str
    version: VersionNumber
    digest: str  # sha256 of the qcow2 file, 64 lower-case hexadecimal digits
    file_size: int  # bytes of the qcow2 file
    virtual_size: int  # bytes that the guest sees
    created_at: datetime
    published_at: datetime | None  # None: imported, not offered as `latest`
    excluded_from_latest: bool = False
    end_of_life: datetime | None = None  # from then on `latest` is another one
    replicas: tuple[Replica, ...] = ()  # by region; none: it may be used in every region
    build_id: str = ""  # empty for imported files that were not built here
    source: str = ""  # where the file came from, for people

    @property
    def name(self) -> str:
        """For people and commands: `tiny/1.0.0`."""
        return f"{self.definition}/{self.version}"

    def find_reason_against(self, region: str, now: datetime) -> str | None:
        """Why `latest` cannot mean it in `region`; None: it can."""
        replica = self._find_replica(region)
        if self.published_at is None:
            return "not published"
        if self.excluded_from_latest:
            return "excluded from latest"
        if self.replicas and replica is None:
            regions = ", ".join(each.region for each in self.replicas)
            return f"not replicated to region {region} (only to {regions})"
        if replica is not None and replica.excluded_from_latest:
            return f"excluded from latest in region {region}"
        if self.end_of_life is not None and now >= self.end_of_life:
            return f"past its end of life ({self.end_of_life:%Y-%m-%d %H:%M} UTC)"
        return None

    def find_available_at(self, region: str) -> datetime | None:
        """Since when it can be rolled out in `region`: published, and replicated to it."""
        replica = self._find_replica(region)
        if self.published_at is None or (self.replicas and replica is None):
            return None
        return (
            self.published_at if replica is None else max(self.published_at, replica.replicated_at)
        )

    def _find_replica(self, region: str) -> Replica | None:
        return next((each for each in self.replicas if each.region == region), None)


def find_latest(
    versions: tuple[ImageVersion, ...], *, region: str, now: datetime
) -> ImageVersion | None:
    """The highest version that `latest` may mean in `region`."""
    offered = [each for each in versions if each.find_reason_against(region, now) is None]
    return max(offered, key=lambda image: image.version, default=None)
