"""Real SSH servers as processes on loopback, for the tests of what speaks SSH."""

import contextlib
import getpass
import os
import select
import signal
import socket
import socketserver
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


class Relay(socketserver.ThreadingTCPServer):
    """A port before a server's: closed, then listening, then passing connections on."""

    daemon_threads = True

    def __init__(self, behind):
        super().__init__(("127.0.0.1", free_port()), _Passage, bind_and_activate=False)
        self.behind = behind
        self.port = self.server_address[1]
        self.spoken = 0  # connections on which the client said something
        self._thread = None

    def listen(self):
        self.server_bind()
        self.server_activate()

    def has_caller(self):
        """Does somebody wait to be let in, or did somebody before?"""
        return self._thread is not None or bool(select.select([self], [], [], 0)[0])

    def ensure_serving(self):
        if self._thread is None:
            self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
            self._thread.start()

    def close(self):
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()


class _Passage(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", self.server.behind)) as far:
            back = threading.Thread(target=_pump, args=(far, self.request), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                first = self.request.recv(1, socket.MSG_PEEK)
                self.server.spoken += bool(first)
            _pump(self.request, far)
            back.join()


def _pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


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
