"""What an image version is made from: another version, an address with a checksum, or a file."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from labctl.arm.errors import invalid, not_supported
from labctl.arm.gallery_body import StorageProfile
from labctl.arm.ids import ResourceId, parse_id
from labctl.model.extension_rules import find_host_fault
from labctl.model.publisher import Algorithm, Checksum, Compression

_AT = "properties.storageProfile"
_CHECKSUM = re.compile(r"(sha256|sha512)[=:]([0-9A-Fa-f]+)")
_VERSIONS = "microsoft.compute/galleries/images/versions"
_COMPRESSIONS = {".bz2": Compression.BZIP2, ".xz": Compression.XZ}
WAYS = (
    "A version is made from the id of another version of a gallery "
    "(storageProfile.source.id), or in storageProfile.osDiskImage.source.uri from a file in the "
    "directory 'import' of the lab's state directory (file:///..., or its absolute path), or from "
    "https://HOST/FILE.qcow2#sha256=DIGITS."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSource:
    """The same file under another name."""

    id: ResourceId


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSource:
    """A file to download."""

    url: str  # without the checksum
    checksum: Checksum
    compression: Compression
    is_raw: bool

    @property
    def origin(self) -> str:
        """Where the image came from, for people; the query may hold a secret."""
        return f"{self.url.partition('?')[0]} {self.checksum}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file of this host."""

    path: Path
    checksum: Checksum | None
    is_raw: bool

    @property
    def origin(self) -> str:
        """Where the image came from, for people."""
        return str(self.path)


Source = VersionSource | UrlSource | FileSource


def mask_uri(uri: str) -> str:
    """An address without its query, which is often a key."""
    start, mark, fragment = uri.partition("#")
    return start.partition("?")[0] + mark + fragment if start.startswith("https:") else uri


def read_source(profile: StorageProfile) -> Source | None:
    """What a storage profile names; None: nothing. Raises ArmError."""
    if profile.data_disk_images:
        raise not_supported(
            "Data disks of a lab are never made from images; leave dataDiskImages out.",
            target=f"{_AT}.dataDiskImages",
        )
    whole = profile.source
    disk = profile.os_disk_image.source if profile.os_disk_image else None
    if whole is not None:
        for value, name in (
            (whole.community_gallery_image_id, "communityGalleryImageId"),
            (whole.virtual_machine_id, "virtualMachineId"),
        ):
            if value:
                raise not_supported(
                    f"A lab makes no image from a {name}. {WAYS}", target=f"{_AT}.source.{name}"
                )
    named = whole.id if whole else None
    if disk is not None and disk.uri:
        if named:
            raise invalid(f"Two sources are named. {WAYS}", target=f"{_AT}.source.id")
        # A storage account is what `az` asks for beside --os-vhd-uri; there is none here to ask.
        return read_uri(disk.uri)
    if named and disk is not None and disk.id and disk.id.lower() != named.lower():
        raise invalid(f"Two sources are named. {WAYS}", target=f"{_AT}.osDiskImage.source.id")
    if named:
        return _read_id(named, f"{_AT}.source.id")
    if disk is not None and disk.id:
        return _read_id(disk.id, f"{_AT}.osDiskImage.source.id")
    if disk is not None and disk.storage_account_id:
        raise invalid(
            f"A storage account alone names no file. {WAYS}",
            target=f"{_AT}.osDiskImage.source.storageAccountId",
        )
    return None


def read_uri(text: str) -> UrlSource | FileSource:
    """Read what `--os-vhd-uri` gives. Raises ArmError (InvalidParameter)."""
    at = f"{_AT}.osDiskImage.source.uri"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise invalid(f"'{at}' holds control characters. {WAYS}", target=at)
    if text.startswith("/"):
        return _read_path(text, None, at)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise invalid(f"'{at}' is no address: {error}. {WAYS}", target=at) from error
    checksum = _read_checksum(parts.fragment, at)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or parts.query:
            raise invalid(f"'{at}' must be a file of this host. {WAYS}", target=at)
        return _read_path(path, checksum, at)
    if parts.scheme != "https" or not host or port == 0:
        raise invalid(f"'{at}' must begin with https://, file:/// or a slash. {WAYS}", target=at)
    if "@" in parts.netloc or not re.fullmatch(r"[!-~]+", text):
        raise invalid(f"'{at}' holds a user, a password, blanks or non-ASCII text.", target=at)
    fault = find_host_fault(host, is_plain=False, allow_http=False)
    if fault:
        raise invalid(f"'{at}' {fault}.", target=at)
    if checksum is None:
        raise invalid(
            f"'{at}' needs the file's checksum as its fragment, {text.partition('?')[0][:200]}"
            "#sha256=DIGITS: what is downloaded is verified, or not imported.",
            target=at,
        )
    suffix = PurePosixPath(parts.path).suffix.lower()
    inner = PurePosixPath(PurePosixPath(parts.path).stem).suffix.lower()
    return UrlSource(
        url=parts._replace(fragment="", netloc=parts.netloc.lower()).geturl(),
        checksum=checksum,
        compression=_COMPRESSIONS.get(suffix, Compression.NONE),
        is_raw=".raw" in {suffix, inner if suffix in _COMPRESSIONS else suffix},
    )


def _read_id(text: str, at: str) -> VersionSource:
    identifier = parse_id(text, target=at)
    if identifier.type.lower() != _VERSIONS:
        raise not_supported(
            f"A lab has no {identifier.type[:200]} to make an image from. {WAYS}", target=at
        )
    return VersionSource(id=identifier)


def _read_path(text: str, checksum: Checksum | None, at: str) -> FileSource:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or "\0" in text or len(text) > 1000:
        raise invalid(f"'{at}' must be an absolute path without '..'. {WAYS}", target=at)
    return FileSource(path=path, checksum=checksum, is_raw=path.suffix.lower() == ".raw")


def _read_checksum(fragment: str, at: str) -> Checksum | None:
    if not fragment:
        return None
    match = _CHECKSUM.fullmatch(fragment)
    algorithm = Algorithm(match[1]) if match else Algorithm.SHA256
    if match is None or len(match[2]) != algorithm.digits:
        raise invalid(
            f"The fragment of '{at}' must be sha256= and 64, or sha512= and 128 hexadecimal "
            "digits.",
            target=at,
        )
    return Checksum(algorithm=algorithm, digest=match[2].lower())
