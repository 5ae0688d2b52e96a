"""Who publishes cloud images, what they offer, and one immutable version of it."""

from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override

from labctl.model.image import OsType, VersionNumber


class Architecture(StrEnum):
    """The processor that an image is for."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @property
    def debian_name(self) -> str:
        """The name that Debian, Ubuntu and Flatcar use."""
        return {Architecture.X86_64: "amd64", Architecture.AARCH64: "arm64"}[self]


class Algorithm(StrEnum):
    """The checksums that count; MD5 and SHA-1 do not."""

    SHA256 = "sha256"
    SHA512 = "sha512"

    @property
    def digits(self) -> int:
        """How many hexadecimal digits a checksum has."""
        return {Algorithm.SHA256: 64, Algorithm.SHA512: 128}[self]


class Compression(StrEnum):
    """What has to be undone before the file is a disk image."""

    NONE = "none"
    BZIP2 = "bz2"
    XZ = "xz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """The checksum of a published file, as it is downloaded (compressed or not)."""

    algorithm: Algorithm
    digest: str  # lower-case hexadecimal digits

    @override
    def __str__(self) -> str:
        """Write `sha256:12ab...`."""
        return f"{self.algorithm.value}:{self.digest}"


class Covers(StrEnum):
    """What a publisher signs."""

    IMAGE = "image"  # the file itself
    SUMS = "sums"  # the file of checksums, detached or clearsigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Where the OpenPGP signature of a version is."""

    covers: Covers
    url: str
    sums_url: str = ""  # the file that a detached signature of checksums covers


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Who publishes images, as on the command line: `ubuntu`."""

    name: str
    title: str
    hosts: tuple[str, ...]  # where indexes and images may lie
    signs: str  # what is signed and how, for people
    note: str = ""
    os_type: OsType = OsType.LINUX


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A family of images of a publisher: `server`."""

    publisher: str
    name: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sku:
    """What gets new versions: `24.04`."""

    publisher: str
    offer: str
    name: str
    title: str
    definition: str  # the image definition that `pull` proposes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedVersion:
    """One immutable file of a publisher; never an alias such as `latest` or `current`."""

    version: VersionNumber
    build: str  # the publisher's own name of it: `20260826.1`
    url: str
    architecture: Architecture
    checksum: Checksum | None  # None: it is in one of `sums_urls`
    sums_urls: tuple[str, ...] = ()  # files of checksums, the best first
    signature: Signature | None = None
    size: int | None = None  # bytes of the download
    compression: Compression = Compression.NONE

    @property
    def file_name(self) -> str:
        """The last part of the address; for lookups in lists, never for local paths."""
        return self.url.rsplit("/", 1)[-1]


def find_newest(versions: tuple[PublishedVersion, ...]) -> PublishedVersion | None:
    """The highest version, compared as numbers."""
    return max(versions, key=lambda each: each.version, default=None)
