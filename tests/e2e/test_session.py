"""A plain user's lab on qemu:///session: no root, no system daemons, state at home."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import HEALTH, ROOT, Lab, checksum, wait_for, write_payload

pytestmark = pytest.mark.root

DATA = [{"name": "data", "size": "32MiB", "fileSystem": "ext4", "mountPoint": "/data"}]
# The checkout may lie where only root may go, so for each command it is bound to another place.
_AS_USER = """
set -e
mount --bind "$1" "$3/checkout"
mount --bind "$2" "$3/venv"
user=$4
shift 4
cd /
exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
"""


class PlainUser(Lab):
    """A new user of this host, who uses labctl with its defaults."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"labctl-t{os.getpid()}"
        self.home = directory / "home"
        self.prefix = (
            *("unshare", "--mount", "sh", "-c", _AS_USER, "sh"),
            *(str(ROOT), sys.prefix, str(directory), self.name),
        )
        self.state_dir = self.home / ".local" / "state" / "labctl"
        runtime = directory / "run"
        for path in (directory / "checkout", directory / "venv", directory / "specs", runtime):
            path.mkdir(mode=0o755)
        self.specs = directory / "specs"
        command = ["useradd", "--create-home", "--home-dir", str(self.home), "--shell", "/bin/sh"]
        subprocess.run([*command, self.name], check=True, capture_output=True)
        self.uid = pwd.getpwnam(self.name).pw_uid
        runtime.chmod(0o700)
        os.chown(runtime, self.uid, -1)
        self.env = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(directory / "checkout"),
            "XDG_RUNTIME_DIR": str(runtime),
        }

    def command(self, *words: str) -> list[str]:
        python = self.directory / "venv" / "bin" / "python"
        return [*self.prefix, str(python), "-m", "labctl", *words]

    def may_read(self, path: Path) -> bool:
        return subprocess.run([*self.prefix, "test", "-r", path], env=self.env).returncode == 0

    def virsh(self, *words: str) -> str:
        command = [*self.prefix, "virsh", "-q", "-c", "qemu:///session", *words]
        return subprocess.check_output(command, text=True, env=self.env)

    def processes(self) -> dict[int, str]:
        """What runs as this user, by number; zombies have ended."""
        found = {}
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and process.stat().st_uid == self.uid:
                    # Empty for a zombie, whose parent has not looked yet.
                    command = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
                    if command:
                        found[int(process.name)] = Path(command).name
        return found

    def end_processes(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not self.processes(), seconds=10, what="end of the processes")

    def close(self) -> None:
        self.end_processes()
        subprocess.run(["userdel", self.name], check=True, capture_output=True)


@pytest.fixture
def user() -> Iterator[PlainUser]:
    if os.geteuid() != 0:
        pytest.skip("to make a user needs root")
    # Short, for libvirt puts sockets below it, whose names must not have more than 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        made = PlainUser(directory)
        try:
            for file in ("checkout/labctl/__main__.py", "venv/bin/python"):
                if not made.may_read(directory / file):
                    pytest.skip(f"no other user may read {file}; was umask 077 in force?")
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(directory)


def test_a_plain_user_applies_upgrades_and_deletes(user, tiny_files):
    lab = user
    lab.import_images(tiny_files)
    lab.apply("mine", health=HEALTH, dataDisks=DATA)
    row = lab.instances("mine")["mine_0"]
    assert (row["health"], row["imageVersion"]) == ("Healthy", "1.0.0")
    assert lab.virsh("list", "--name").split() == ["mine_0"]
    assert lab.state_dir.stat().st_uid == lab.uid
    before = write_payload(lab, "mine_0")
    assert "mine-0 serves, image 1.0.0" in lab.run("instance", "logs", "mine_0").stdout
    lab.run("upgrade", "start", "mine", "--version", "1.1.0")
    assert lab.versions("mine") == ["1.1.0"]
    assert checksum(lab, "mine_0") == before
    lab.run("delete", "mine", "--yes")
    lab.run("disk", "delete", "mine_0/data", "--yes")
    assert lab.virsh("list", "--all", "--name").split() == []
    assert lab.files("mine") == []
    # The daemons of the session end by themselves after a while; nothing else is left.
    assert set(user.processes().values()) <= {"libvirtd", "virtlogd"}
