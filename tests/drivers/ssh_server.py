"""Real SSH servers as processes on loopback, for the tests of what speaks SSH."""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from labctl.drivers.keys import ensure_controller_key, make_key_pair
from labctl.drivers.ssh import SshTarget
from labctl.settings import Settings


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class SshServer:
    """OpenSSH's server with one account: the user who runs the tests."""

    def __init__(self, directory, *, is_guest=False):
        """A guest has a /run, a /var/lib/labctl and a /usr/local/sbin of its own; needs root."""
        self.directory = directory
        self.is_guest = is_guest
        self.port = free_port()
        self.host_key = make_key_pair("host")
        settings = Settings(state_dir=directory / "state", uri="test:///default")
        self.authorized = directory / "authorized_keys"
        self.authorized.write_text(ensure_controller_key(settings) + "\n")
        self.target = SshTarget(
            host="127.0.0.1",
            port=self.port,
            user=getpass.getuser(),
            host_key_public=self.host_key.public,
            key_path=settings.controller_key,
        )
        self.process = None

    def start(self):
        key = self.directory / "host_key"
        key.write_text(self.host_key.private)
        key.chmod(0o600)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
        config = self.directory / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.authorized}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        command = ["/usr/sbin/sshd", "-D", "-f", config]
        if self.is_guest:
            mounts = "/run", "/var/lib/labctl", "/usr/local/sbin"
            script = "".join(f"mkdir -p {m} && mount -t tmpfs tmpfs {m} && " for m in mounts)
            script += 'mkdir /run/sshd && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", script, "-", *command]
        self.process = subprocess.Popen(command, start_new_session=True)
        return self

    def is_listening(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def path(self, inside):
        """A path in the guest, seen from here."""
        return Path(f"/proc/{self.process.pid}/root") / inside.lstrip("/")

    def hang_up(self):
        """End the sessions, as a broken network does; the server stays."""
        for pid in descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        """End the server and every session."""
        if self.process is not None:
            self.hang_up()
            self.process.kill()
            self.process.wait()
            self.process = None


def descendants(pid):
    """The sessions of a server, not what they started: a session's child leads a session itself."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines()[1:]]
    sessions = {int(row[0]): int(row[1]) for row in rows if row[2] == "sshd"}
    found, wave = set(), {pid}
    while wave:
        wave = {child for child, parent in sessions.items() if parent in wave}
        found |= wave
    return found


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.05)
