"""Where labctl keeps things and which hypervisor it talks to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import InvalidError

DIRECTORY_MODE = 0o711  # others pass through, nobody lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one run. Paths are absolute."""

    state_dir: Path
    uri: str

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "labctl.db"

    @property
    def blobs_dir(self) -> Path:
        """Image files, named by digest, read-only."""
        return self.state_dir / "images"

    @property
    def cache_dir(self) -> Path:
        """What can be made again: build caches, the acceleration verdict."""
        return self.state_dir / "cache"

    @property
    def import_dir(self) -> Path:
        """Files that the API may import from (0700); only who may write here chooses them."""
        return self.state_dir / "import"

    @property
    def locks_dir(self) -> Path:
        """Lock files; one for each scale set and one for each image digest."""
        return self.state_dir / "locks"

    @property
    def controller_key(self) -> Path:
        """The private SSH key with which labctl logs in to its instances (0600)."""
        return self.state_dir / "ssh" / "id_ed25519"

    @property
    def api_dir(self) -> Path:
        """Certificates and keys of the API's server (0700)."""
        return self.state_dir / "api"

    @property
    def ca_certificate(self) -> Path:
        """What clients of the API trust; everybody may read it."""
        return self.api_dir / "ca.pem"

    @property
    def api_address(self) -> Path:
        """Where the API answers while `labctl serve` runs, for commands on this host."""
        return self.api_dir / "address"

    def scale_set_dir(self, scale_set: str) -> Path:
        """Disks, seeds and console logs of the instances of a scale set."""
        return self.state_dir / "scale-sets" / scale_set

    def evidence_dir(self, upgrade_id: int, instance: str) -> Path:
        """What was found when `instance` failed in upgrade `upgrade_id`."""
        return self.state_dir / "upgrades" / str(upgrade_id) / instance


def make_passable(path: Path) -> None:
    """Make a directory and its missing parents so that QEMU's user passes through. Raises OSError.

    Whatever the umask is: a service or a careful person's shell may have 077. A directory that is
    there already stays as it is.
    """
    if path.parent != path and not path.parent.exists():
        make_passable(path.parent)
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(DIRECTORY_MODE)


def load_settings(
    *,
    state_dir: Path | None = None,
    uri: str | None = None,
    environment: Mapping[str, str] | None = None,
    is_root: bool | None = None,
) -> Settings:
    """Resolve options, then LABCTL_STATE_DIR and LABCTL_URI, then the defaults of this user.

    Raises InvalidError for a relative XDG_STATE_HOME or an empty URI.
    """
    environment = os.environ if environment is None else environment
    root = os.geteuid() == 0 if is_root is None else is_root
    chosen = state_dir or _path_from(environment, "LABCTL_STATE_DIR")
    if chosen is None:
        if root:
            chosen = Path("/var/lib/labctl")
        else:
            base = _path_from(environment, "XDG_STATE_HOME") or Path.home() / ".local" / "state"
            if not base.is_absolute():
                raise InvalidError(
                    f"XDG_STATE_HOME is {str(base)!r}, which is not an absolute path",
                    hint="set it to an absolute path or unset it",
                )
            chosen = base / "labctl"
    default_uri = "qemu:///system" if root else "qemu:///session"
    return Settings(
        state_dir=chosen.expanduser().absolute(),
        uri=uri or environment.get("LABCTL_URI") or default_uri,
    )


def _path_from(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name)
    return Path(value) if value else None
