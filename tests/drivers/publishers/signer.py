"""A publisher's signing key."""

import shutil
import subprocess
import tempfile
from pathlib import Path


class Signer:
    """A key of its own, made by gpg, that signs for real."""

    def __init__(self, name, *, expired=False):
        # The path of gpg-agent's socket must stay below 108 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        self.name = name
        self._clock = ["--faked-system-time", "20200101T000000"] if expired else []
        lifetime = "1d" if expired else "never"
        self._run("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", lifetime)

    def _run(self, *words, content=b""):
        done = subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--quiet", "--yes", *self._clock, *words],
            input=content,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def export(self, *, armor=False):
        return self._run(*(["--armor"] if armor else []), "--export", self.name)

    def detach(self, content, *, armor=False):
        return self._run(*(["--armor"] if armor else []), "--detach-sign", content=content)

    def clearsign(self, text):
        return self._run("--clearsign", content=text.encode())

    def close(self):
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)
