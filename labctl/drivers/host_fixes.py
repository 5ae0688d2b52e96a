"""What `labctl doctor --fix` changes on this host; each function says what it did."""

import os
import shutil
import stat
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from shlex import quote

from labctl.drivers.acceleration import KVM_DEVICE
from labctl.drivers.command import Completed, run
from labctl.drivers.host_access import User
from labctl.errors import LabError

# Daemons and disk tools live where a plain user does not look.
PATH_OF_ROOT = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

_PATIENCE = timedelta(seconds=20)
_INSTALLATION = timedelta(minutes=15)
_SYSTEMD = Path("/run/systemd/system")
_QUESTIONS = {
    "virtlogd": ("virt-admin", "-c", "virtlogd:///system", "server-list"),
    "libvirtd": ("virsh", "-c", "qemu:///system", "version"),
}


def ask(*words: str) -> Completed:
    """Run a program that may be absent or silent; that is an exit code of 1, with the reason."""
    try:
        return run(words, timeout=_PATIENCE, check=False)
    except LabError as error:
        return Completed(exit_code=1, stdout="", stderr=error.brief)


def describe_daemon_start() -> str:
    """The command that starts the daemons of this host."""
    if _SYSTEMD.is_dir():
        return "run as root: systemctl start virtlogd.socket libvirtd.socket"
    return "run as root: virtlogd -d; libvirtd -d"


def ensure_daemons() -> str:
    """Start virtlogd and libvirtd where they do not answer."""
    silent = [name for name, question in _QUESTIONS.items() if ask(*question).exit_code != 0]
    if silent and _SYSTEMD.is_dir():
        sockets = [f"{daemon}.socket" for daemon in silent]
        run(["systemctl", "start", *sockets], timeout=_PATIENCE)
    else:
        for daemon in silent:
            program = shutil.which(daemon, path=PATH_OF_ROOT) or daemon
            # It leaves the foreground only when it listens.
            run([program, "-d"], timeout=_PATIENCE)
    return f"started {' and '.join(silent)}" if silent else "virtlogd and libvirtd answer now"


def ensure_kvm_access(user: User) -> str:
    """Let the user as whom QEMU runs open /dev/kvm, as udev does elsewhere."""
    shutil.chown(KVM_DEVICE, user="root", group="kvm")
    KVM_DEVICE.chmod(0o660)
    run(["usermod", "-a", "-G", "kvm", user.name], timeout=_PATIENCE)
    return f"{KVM_DEVICE} belongs to root:kvm, mode 0660, and {user.name} is in the group kvm"


def ensure_passable(directories: Sequence[Path]) -> str:
    """Let everybody pass directories, not list them."""
    for directory in directories:
        directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o001)
    return f"chmod o+x {' '.join(quote(str(directory)) for directory in directories)}"


def ensure_private(path: Path) -> str:
    """Keep a file from everybody but its owner."""
    path.chmod(0o600)
    return f"chmod 0600 {quote(str(path))}"


def ensure_packages(packages: Sequence[str]) -> str:
    """Install Debian packages. Raises CommandError with apt-get's last words."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *words]
        run(command, timeout=_INSTALLATION, environment=environment)
    return f"installed {' '.join(packages)}"
