"""A libvirtd of the tests' own, which they may kill, in namespaces that vanish with it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import wait_for

_OWN = ("/run", "/etc", "/var/lib", "/var/log", "/var/cache")
_SOCKET = "/run/libvirt/libvirt-sock"
_BEGIN = """
set -e
config=$(cat /etc/libvirt/qemu.conf 2>/dev/null || true)
mount -t tmpfs -o mode=0755 tmpfs /run/libvirt
# What the host's libvirt knows of QEMU spares a probe of several seconds.
tar -C /var/cache/libvirt -cf /run/libvirt/known.tar .
for top in /etc /var/lib /var/log /var/cache; do
    mount -t tmpfs -o mode=0755 tmpfs "$top/libvirt"
done
tar -C /var/cache/libvirt -xf /run/libvirt/known.tar
rm /run/libvirt/known.tar
# Nothing but the user that QEMU runs as: no networks, no domains, nothing that starts by itself.
printf '%s\\n' "$config" >/etc/libvirt/qemu.conf
ip link set lo up
echo ready
exec sleep infinity
"""


class PrivateLibvirt:
    """virtlogd and libvirtd in mount and network namespaces of their own. Needs root."""

    uri = "qemu:///system"  # for those inside

    def __init__(self) -> None:
        for top in _OWN:
            Path(top, "libvirt").mkdir(exist_ok=True)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", _BEGIN],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self._holder.wait()
            raise AssertionError("no namespaces of our own: see the messages above")
        self.prefix = ("nsenter", "--target", str(self._holder.pid), "--mount", "--net")
        self._logd = self._spawn("virtlogd")
        self._daemon: subprocess.Popen[bytes] | None = None
        self.start()

    def run(self, *command: str | Path) -> str:
        """Run a program beside the daemon."""
        words = [*self.prefix, *map(str, command)]
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout

    def start(self) -> None:
        """Start libvirtd and wait until it answers."""
        self._inside(_SOCKET).unlink(missing_ok=True)
        self._daemon = daemon = self._spawn("libvirtd")

        def answers() -> bool:
            assert daemon.poll() is None, self._inside("/var/log/libvirt/libvirtd.out").read_text()
            # The socket is there before libvirtd listens, so ask.
            version = [*self.prefix, "virsh", "-q", "-c", self.uri, "version"]
            return (
                self._inside(_SOCKET).exists()
                and subprocess.run(version, capture_output=True).returncode == 0
            )

        wait_for(answers, seconds=30, what="the private libvirtd")

    @property
    def is_alive(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def kill(self) -> None:
        """SIGKILL; domains and virtlogd go on."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None

    def close(self) -> None:
        """End whatever runs in the network namespace, which only our own children can."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not self._processes(), seconds=5, what="end of the daemons")
        for process in (self._daemon, self._logd, self._holder):
            if process is not None:
                process.kill()
                process.wait()
        self._holder.stdout.close()

    def _processes(self) -> list[int]:
        """Everything alive in there but the holder, without which the namespace had no name."""
        namespace = Path(f"/proc/{self._holder.pid}/ns/net").readlink()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != self._holder.pid:
                # Gone meanwhile, or a zombie that waits for its parent.
                with contextlib.suppress(OSError):
                    if (process / "ns" / "net").readlink() == namespace:
                        found.append(int(process.name))
        return found

    def _inside(self, path: str) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        with self._inside(f"/var/log/libvirt/{program}.out").open("ab") as log:
            # Where processors differ in what they say of themselves, libvirtd probes QEMU again for
            # 8 s whenever it starts on another one. It gives its guests all of them nevertheless.
            pinned = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
            return subprocess.Popen(
                [*self.prefix, *pinned, program, "--pid-file", f"/run/libvirt/{program}.pid"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextlib.contextmanager
def running_libvirt() -> Iterator[PrivateLibvirt]:
    libvirt = PrivateLibvirt()
    try:
        yield libvirt
    finally:
        libvirt.close()
