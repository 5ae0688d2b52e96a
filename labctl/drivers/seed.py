"""The NoCloud seed of an OS generation: an ISO image labelled `cidata`."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pycdlib import PyCdlib
from pycdlib.pycdlibexception import PyCdlibException

from labctl.drivers.disks import write_private

_HASH_FILE = "labctl-hash"
_NO_USER_DATA = b"#cloud-config\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedContent:
    """What an instance learns at its first boot on an OS generation."""

    instance_id: str
    hostname: str
    public_keys: tuple[str, ...]
    user_data: bytes  # the user's custom data, verbatim; empty: none
    vendor_data: bytes
    network_config: str
    boot_script: str

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the seed by name."""
        metadata = {
            "instance-id": self.instance_id,
            "local-hostname": self.hostname,
            "public-keys": list(self.public_keys),
        }
        return {
            "meta-data": (json.dumps(metadata, indent=2) + "\n").encode(),
            "user-data": self.user_data or _NO_USER_DATA,
            "vendor-data": self.vendor_data,
            "network-config": self.network_config.encode(),
            "labctl-boot.sh": self.boot_script.encode(),
        }


class SeedFiles(Protocol):
    """What a seed is made of, for cloud-init or for cloudbase-init."""

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the seed by name."""


def ensure_seed(path: Path, content: SeedFiles) -> bool:
    """Write the seed. False: a seed with this very content was there.

    Raises HostError when it cannot be written.
    """
    files = content.files
    digest = _digest(files)
    if _find_digest(path) == digest:
        return False
    write_private(path, _build_image({**files, _HASH_FILE: digest.encode()}))
    return True


def _digest(files: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, data in sorted(files.items()):
        # The length keeps two files from passing for others that were cut elsewhere.
        total.update(f"{name}\0{len(data)}\0".encode())
        total.update(data)
    return total.hexdigest()


def _find_digest(path: Path) -> str | None:
    image = PyCdlib()
    digest = io.BytesIO()
    try:
        image.open(str(path))
    except (OSError, PyCdlibException):
        return None  # missing, cut off, or given to QEMU's user: write it anew
    try:
        image.get_file_from_iso_fp(digest, joliet_path=f"/{_HASH_FILE}")
    except PyCdlibException:
        return None
    finally:
        image.close()
    return digest.getvalue().decode()


def _build_image(files: dict[str, bytes]) -> bytes:
    image = PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for index, (name, data) in enumerate(files.items()):
        image.add_fp(
            io.BytesIO(data),
            len(data),
            f"/FILE{index}.;1",  # nobody reads the short names
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100755 if name.endswith(".sh") else 0o100644,
        )
    written = io.BytesIO()
    image.write_fp(written)
    image.close()
    return written.getvalue()
