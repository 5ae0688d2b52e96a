"""The Ignition config of an OS generation, for images that have no cloud-init."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from labctl.drivers.disks import write_private
from labctl.model.image import OsType

VERSION = "3.3.0"  # of the specification; Flatcar and Fedora CoreOS know it since 2021
_BOOT_SCRIPT = "/etc/labctl/boot-from-seed.sh"

# Ignition itself works only once, at the first boot of an OS disk. What labctl does at every boot
# is on the seed, as for any other image, so that a changed model needs no new OS disk.
_BOOT_FROM_SEED = """\
#!/bin/sh
# Prepares the instance with the script that labctl's seed carries.
set -u
seed=/run/labctl/seed
mkdir -p "$seed" || exit
mount -t iso9660 -o ro /dev/disk/by-id/virtio-seed "$seed" || exit
sh "$seed/labctl-boot.sh"
code=$?
umount "$seed"
# Who gets here has been through Ignition, and with it through the custom data.
printf '{"status": "done"}\\n' >/run/labctl/custom-data.json.part
mv -f /run/labctl/custom-data.json.part /run/labctl/custom-data.json
exit $code
"""

# Before the sockets, one of which may be sshd's: without the default dependencies, since these
# would have it wait for the sockets.
_UNIT = f"""\
[Unit]
Description=labctl prepares the instance
DefaultDependencies=no
Requires=dev-disk-by\\x2did-virtio\\x2dseed.device
After=dev-disk-by\\x2did-virtio\\x2dseed.device local-fs.target systemd-tmpfiles-setup.service
Before=sshd.socket sshd.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {_BOOT_SCRIPT}
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnitionContent:
    """What an instance learns at the first boot of an OS generation."""

    hostname: str
    user: str
    public_keys: tuple[str, ...]
    host_key: str
    host_key_public: str
    custom_data: bytes  # an Ignition config of the user; empty: none

    @property
    def text(self) -> str:
        """The config, with the user's merged over it. Equal input, equal text."""
        ignition: dict[str, Any] = {"version": VERSION}
        if self.custom_data:
            ignition["config"] = {"merge": [{"source": _data_url(self.custom_data)}]}
        key = "/etc/ssh/ssh_host_ed25519_key"
        config = {
            "ignition": ignition,
            "passwd": {
                "users": [
                    {
                        "name": self.user,
                        "homeDir": f"/home/{self.user}",
                        "shell": "/bin/sh",
                        "system": True,
                        "sshAuthorizedKeys": list(self.public_keys),
                    }
                ]
            },
            "storage": {
                "files": [
                    _file("/etc/hostname", f"{self.hostname}\n", 0o644),
                    _file(key, self.host_key, 0o600),
                    _file(f"{key}.pub", f"{self.host_key_public.strip()}\n", 0o644),
                    _file(_BOOT_SCRIPT, _BOOT_FROM_SEED, 0o755),
                ]
            },
            "systemd": {
                "units": [{"name": "labctl-boot.service", "enabled": True, "contents": _UNIT}]
            },
        }
        return json.dumps(config, indent=1) + "\n"


def ensure_ignition(path: Path, content: IgnitionContent) -> bool:
    """Write the config. False: it was there. Raises HostError."""
    wanted = content.text.encode()
    try:
        if path.read_bytes() == wanted:
            return False
    except OSError:
        pass  # missing, or given to QEMU's user: write it anew
    write_private(path, wanted)
    return True


def find_entry_name(os_type: OsType) -> str | None:
    """Under which name of QEMU's fw_cfg the image looks for its config; None: it reads the seed."""
    match os_type:
        case OsType.LINUX | OsType.WINDOWS:
            return None
        case OsType.FLATCAR:
            return "opt/org.flatcar-linux/config"
        case OsType.FEDORA_COREOS:
            return "opt/com.coreos/config"
        case _:
            assert_never(os_type)


def find_custom_data_fault(custom_data: bytes) -> str | None:
    """Why this cannot be merged as an Ignition config; None: it can."""
    try:
        config = json.loads(custom_data)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {error}"
    ignition = config.get("ignition") if isinstance(config, dict) else None
    version = ignition.get("version") if isinstance(ignition, dict) else None
    if not isinstance(version, str):
        return "it has no ignition.version"
    if not version.startswith("3."):
        return f"ignition.version is {version!r}, not 3.x.y"
    return None


def _file(path: str, content: str, mode: int) -> dict[str, Any]:
    return {
        "path": path,
        "mode": mode,
        "overwrite": True,
        "contents": {"source": _data_url(content.encode())},
    }


def _data_url(content: bytes) -> str:
    return f"data:;base64,{base64.b64encode(content).decode()}"
