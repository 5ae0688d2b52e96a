"""A lab directory with an awkward name, and guests of one boot sector, up in a moment."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from labctl.drivers.disks import (
    DataDisk,
    data_disk_path,
    ensure_data_disk,
    ensure_overlay,
    os_generation_files,
)
from labctl.drivers.domain import DataDiskFile, DomainConfig, UserNetwork
from labctl.drivers.hypervisor import Hypervisor

_numbers = itertools.count()
_HALT = bytes.fromhex("fa f4 eb fd")  # cli; hlt; jmp -3
# Sleep until the bit of the ACPI power button is up (0x600), power off (0x604).
_OBEY = bytes.fromhex("fb f4 ba 00 06 ed f6 c4 01 74 f6 ba 04 06 b8 00 20 ef fa f4 eb fd")
_PANIC = bytes.fromhex("ba 05 05 b0 01 ee fa f4 eb fd")  # out 0x505, 1: the pvpanic device
PROGRAMS = {"halts": _HALT, "obeys": _OBEY, "panics": _PANIC}
# Before it speaks, so that who has heard it may press: enable the ACPI power button (0x602).
_ENABLE_BUTTON = bytes.fromhex("ba 02 06 b8 00 01 ef")
_PREPARATIONS = {"obeys": _ENABLE_BUTTON}


def boot_sector(program: str) -> bytes:
    say = b"".join(bytes([0xB0, character, 0xEE]) for character in b"hello\n")  # out 0x3f8, al
    code = _PREPARATIONS.get(program, b"") + bytes.fromhex("ba f8 03") + say + PROGRAMS[program]
    return code.ljust(510, b"\0") + b"\x55\xaa"


@dataclass
class Lab:
    directory: Path
    hypervisor: Hypervisor
    names: list[str] = field(default_factory=list)

    def make(self, program: str = "halts", **changes: object) -> DomainConfig:
        """Disks and config of an instance that runs `program`."""
        name = f"t-{os.getpid()}-{next(_numbers)}_0"
        self.names.append(name)
        base = self.directory / f"{program}.qcow2"
        if not base.exists():
            raw = self.directory / f"{program}.raw"
            raw.write_bytes(boot_sector(program).ljust(2**20, b"\0"))
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, base], check=True)
            base.chmod(0o444)
        files = os_generation_files(self.directory, name, 1)
        ensure_overlay(files, base, None)
        files.seed.write_bytes(b"\0" * 4096)
        data = DataDisk(
            path=data_disk_path(self.directory, name, "db"),
            name="db",
            serial="data-db",
            size=2**20,
        )
        ensure_data_disk(data)
        config = DomainConfig(
            name=name,
            scale_set="t",
            uuid=uuid4(),
            generation=1,
            vcpus=1,
            memory=64 * 2**20,
            acceleration_kind="tcg",
            cpu_model="qemu64",
            os_disk=files.overlay,
            base_image=base,
            seed=files.seed,
            data_disks=(DataDiskFile(name="db", path=data.path, serial="data-db"),),
            mac="52:54:00:11:22:33",
            network=UserNetwork(),
            console_log=self.directory / f"{name}.console.log",
            state_dir=self.directory,
        )
        return replace(config, **changes)  # type: ignore[arg-type]

    def start(self, program: str = "halts", **changes: object) -> DomainConfig:
        config = self.make(program, **changes)
        self.hypervisor.ensure_defined(config)
        self.hypervisor.ensure_started(config.name)
        return config


def system_uri() -> str:
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


@pytest.fixture
def make_lab() -> Iterator[Callable[[str], Lab]]:
    labs: list[Lab] = []

    def make(uri: str) -> Lab:
        # Not pytest's own directories: they are private to the user, and QEMU's is another one.
        parent = Path(tempfile.mkdtemp(dir="/var/tmp"))
        parent.chmod(0o711)
        directory = parent / 'a lab\'s "quoted", & <spaced>=ü'
        directory.mkdir(mode=0o711)
        labs.append(Lab(directory, Hypervisor(uri)))
        return labs[-1]

    yield make
    for lab in labs:
        for name in lab.names:
            lab.hypervisor.ensure_undefined(name)
        lab.hypervisor.close()
        shutil.rmtree(lab.directory.parent)


@pytest.fixture
def lab(make_lab: Callable[[str], Lab]) -> Lab:
    return make_lab(system_uri())


class PrivateLibvirt:
    """A libvirtd of its own, in mount and network namespaces of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        places = [f"{top}/libvirt" for top in ("/run", "/etc", "/var/lib", "/var/log")]
        binds = []
        for place in places:
            mine = root / place.strip("/").replace("/", "-")
            mine.mkdir(mode=0o755)
            binds.append(f"mount --bind {mine} {place}")
        script = " && ".join([*binds, "ip link set lo up", "echo ready", "exec sleep infinity"])
        command = ["unshare", "--mount", "--net", "sh", "-c", script]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self._logd = self._spawn("virtlogd")
        self.daemon = self._spawn("libvirtd")

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.root}/run-libvirt/libvirt-sock"

    def run(self, *command: str) -> str:
        return subprocess.check_output([*self._enter(), *command], text=True)

    def kill(self) -> None:
        self.daemon.kill()
        self.daemon.wait()

    def start(self) -> None:
        self.daemon = self._spawn("libvirtd")

    def close(self) -> None:
        for process in (self.daemon, self._logd):
            process.terminate()
            process.wait()
        for pid_file in (self.root / "run-libvirt" / "network").glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
        self._holder.terminate()
        self._holder.communicate()

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--net"]

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        log = (self.root / f"{program}.log").open("ab")
        command = [*self._enter(), program, "--pid-file", str(self.root / f"{program}.pid")]
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log)


@pytest.fixture
def private_libvirt() -> Iterator[PrivateLibvirt]:
    root = Path(tempfile.mkdtemp(dir="/var/tmp"))
    root.chmod(0o755)
    libvirt = PrivateLibvirt(root)
    try:
        deadline = time.monotonic() + 20
        while not (root / "run-libvirt" / "libvirt-sock").exists():
            assert time.monotonic() < deadline, (root / "libvirtd.log").read_text()
            threading.Event().wait(0.05)
        yield libvirt
    finally:
        libvirt.close()
        shutil.rmtree(root)
