"""The seed of an OS generation for cloudbase-init, by which Windows images are prepared.

It is a NoCloud seed like cloud-init's: a CD-ROM labelled `cidata` with `meta-data` and `user-data`.
cloudbase-init knows no vendor-data, so labctl's part goes before the user's in `user-data`.
"""

import base64
import hashlib
import json
from dataclasses import dataclass

from labctl.guest.windows_scripts import (
    BOOT_NAME,
    CUSTOM_DATA_NAME,
    build_custom_data_script,
    build_launcher,
)
from labctl.model.windows import is_multipart

_HOSTNAME_LIMIT = 15  # NetBIOS; cloudbase-init would cut the end off, which tells instances apart


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudbaseSeed:
    """What a Windows instance learns at its first boot on an OS generation."""

    instance_id: str
    hostname: str
    public_keys: tuple[str, ...]
    custom_data: str  # of the user; empty: none
    boot_script: str

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the seed by name."""
        metadata = {
            "instance-id": self.instance_id,
            "local-hostname": self.hostname,
            "public-keys": list(self.public_keys),
        }
        found = {
            "meta-data": (json.dumps(metadata, indent=2) + "\n").encode(),
            "user-data": self._build_user_data().encode(),
            BOOT_NAME: self.boot_script.encode(),
        }
        script = build_custom_data_script(self.instance_id, self.custom_data)
        if script is not None:
            found[CUSTOM_DATA_NAME] = script.encode()
        return found

    def _build_user_data(self) -> str:
        has_script = build_custom_data_script(self.instance_id, self.custom_data) is not None
        launcher = build_launcher(has_script=has_script)
        if has_script or not self.custom_data.strip():
            return launcher
        own = (
            'Content-Type: text/x-shellscript; charset="us-ascii"\n'
            'Content-Disposition: attachment; filename="labctl.ps1"\n\n' + launcher
        )
        users = self.custom_data
        if not is_multipart(users):
            # Older cloudbase-init does not decode base64 here, newer takes other 8-bit text for
            # Latin-1; tried with 1.1.9. So base64 only where it must be.
            encoding = "7bit" if users.isascii() else "base64"
            text = users if users.isascii() else base64.encodebytes(users.encode()).decode()
            users = (
                'Content-Type: text/cloud-config; charset="utf-8"\n'
                f"Content-Transfer-Encoding: {encoding}\n"
                f'Content-Disposition: attachment; filename="custom-data.cfg"\n\n{text}'
            )
        boundary = "labctl-" + hashlib.sha256(f"{own}\0{users}".encode()).hexdigest()[:32]
        # These very first bytes, and no carriage returns: that is how it tells parts from a script.
        return (
            f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n'
            f"--{boundary}\n{own}\n--{boundary}\n{users}\n--{boundary}--\n"
        )


def shorten_hostname(name: str) -> str:
    """Make a host name that Windows takes: "warehouse-front_12" becomes "warehouse-fr-12"."""
    stem, _, ordinal = name.rpartition("_")
    return f"{stem[: _HOSTNAME_LIMIT - len(ordinal) - 1].rstrip('-')}-{ordinal}"
