"""The tiny image, built once, and plain QEMU to boot it: no libvirt, no labctl in between."""

import contextlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import paramiko
import pytest

from labctl.drivers.keys import make_key_pair
from labctl.drivers.recipe import build_image
from labctl.drivers.seed import SeedContent, ensure_seed
from labctl.model.image import VersionNumber
from labctl.settings import Settings

# It logs a traceback for each attempt while the guest boots.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

RECIPE = Path(__file__).parents[2] / "images" / "tiny"
BOOT_DEADLINE = 60  # seconds; the host may be busy with other guests


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Settings(state_dir=tmp_path_factory.mktemp("images"), uri="test:///default")


@pytest.fixture(scope="session")
def build_tiny(lab):
    def build(version="1.0.0", greeting="hello", **parameters):
        return build_image(
            RECIPE,
            version=VersionNumber.parse(version),
            parameters=parameters,
            greeting=greeting,
            settings=lab,
        )

    return build


@pytest.fixture(scope="session")
def key():
    return make_key_pair("test")


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Guest:
    """One OS disk that can be booted several times, with one seed at a time."""

    def __init__(
        self,
        directory: Path,
        image: Path,
        key,
        *,
        data_disk: bool = False,
        memory: int = 192,
        disk_size: str = "1G",
        deadline: float = BOOT_DEADLINE,
    ) -> None:
        self.directory = directory
        self.key = key
        self.disk = directory / "os.qcow2"
        self.seed: Path | None = None
        self.console = directory / "console.log"
        self.data = directory / "data.qcow2" if data_disk else None
        self.process: subprocess.Popen | None = None
        self.memory = memory
        self.deadline = deadline
        _create(self.disk, "-b", str(image), "-F", "qcow2", disk_size)
        if self.data:
            _create(self.data, "64M")

    def write_seed(
        self,
        instance_id: str,
        *,
        user_data: bytes = b"",
        boot_script: str = "",
        vendor_data: bytes = b"",
        network_config: str = "version: 2\n",
    ) -> None:
        self.seed = self.directory / "seed.iso"
        content = SeedContent(
            instance_id=instance_id,
            hostname="web-3",
            public_keys=(self.key.public,),
            user_data=user_data,
            vendor_data=vendor_data,
            network_config=network_config,
            boot_script=boot_script,
        )
        ensure_seed(self.seed, content)

    def start(self, *more: str) -> None:
        self.http_port, self.ssh_port, self.agent_port = _free_ports(3)
        self.console.unlink(missing_ok=True)
        arguments = [
            *("qemu-system-x86_64", "-accel", "tcg,tb-size=128", "-cpu", "qemu64", "-smp", "1"),
            *("-m", str(self.memory), "-nodefaults", "-no-user-config", "-display", "none"),
            *("-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off"),
            *("-serial", f"file:{self.console}", "-device", "virtio-rng-pci"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
        ]
        forwards = (self.http_port, 8080), (self.ssh_port, 22), (self.agent_port, 17800)
        arguments += [
            "-netdev",
            "user,id=net"
            + "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{port}" for host, port in forwards),
        ]
        # The OS disk comes last, so that nothing can rely on positions.
        if self.data:
            arguments += self._disk("data-db", self.data)
        if self.seed:
            arguments += self._disk("seed", self.seed, options="readonly=on,format=raw")
        arguments += self._disk("os", self.disk, device=",bootindex=1")
        self.started_at = time.monotonic()
        self.process = subprocess.Popen([*arguments, *more])

    def _disk(self, serial, path, *, device="", options="cache=unsafe,format=qcow2"):
        return (
            *("-drive", f"file={path},if=none,id={serial},{options}"),
            *("-device", f"virtio-blk-pci,drive={serial},serial={serial}{device}"),
        )

    def get(self, path: str) -> tuple[int, str]:
        """Ask the application until it answers: status and body."""
        url = f"http://127.0.0.1:{self.http_port}{path}"

        def ask():
            assert self.process is not None
            assert self.process.poll() is None, "QEMU has ended"
            try:
                with urllib.request.urlopen(url, timeout=0.5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return None

        return self.wait(ask, f"{url} answers")

    def wait(self, condition, what: str, deadline: float | None = None):
        """Ask until something true comes; show the console when it does not come."""
        deadline = deadline or self.deadline
        pause = threading.Event()
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            pause.wait(0.05)
        raise AssertionError(f"not in {deadline} s: {what}\n{self.console_text()[-3000:]}")

    def console_text(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def run(self, command: str, *, user: str = "labctl", host_key: str | None = None) -> str:
        """Run a command by SSH; `host_key` is the one line that the guest must present."""
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(
            paramiko.RejectPolicy() if host_key else paramiko.AutoAddPolicy()
        )
        if host_key:
            name = f"[127.0.0.1]:{self.ssh_port}"
            line = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {host_key}")
            client.get_host_keys().add(name, line.key.get_name(), line.key)
        private = self.directory / "key"
        private.write_text(self.key.private)

        def connect():
            try:
                client.connect(
                    "127.0.0.1",
                    port=self.ssh_port,
                    username=user,
                    key_filename=str(private),
                    look_for_keys=False,
                    allow_agent=False,
                    timeout=5,
                    banner_timeout=15,
                )
            except paramiko.BadHostKeyException:
                raise
            except (paramiko.SSHException, OSError, EOFError):
                return False
            return True

        with client:
            self.wait(connect, "SSH lets us in")
            _, stdout, stderr = client.exec_command(command, timeout=self.deadline)
            output = stdout.read().decode()
            assert stdout.channel.recv_exit_status() == 0, output + stderr.read().decode()
            return output

    def verdict(self) -> dict:
        """The verdict on custom data, once it is there."""
        text = self.run(
            "timeout 30 sh -c 'until cat /run/labctl/custom-data.json; do usleep 200000; done'"
            " 2>/dev/null"
        )
        return json.loads(text)

    def press_power_button(self) -> float:
        """Seconds from the button to the end of QEMU."""
        assert self.process is not None
        pressed = time.monotonic()
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.directory / "qmp"))
            with monitor.makefile("rw") as stream:
                stream.readline()
                for command in ("qmp_capabilities", "system_powerdown"):
                    stream.write(json.dumps({"execute": command}) + "\n")
                    stream.flush()
                    stream.readline()
                self.process.wait(30)
        return time.monotonic() - pressed

    def wait_for_end(self, deadline: float) -> None:
        assert self.process is not None
        self.process.wait(deadline)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def _create(path: Path, *arguments: str) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *_before(path, arguments)], check=True
    )


def _before(path: Path, arguments):
    """qemu-img wants options, then the file, then the size."""
    *options, size = arguments
    return [*options, os.fspath(path), size]


@pytest.fixture
def new_guest(tmp_path, key):
    guests = []

    def make(image: Path, **options) -> Guest:
        directory = tmp_path / f"guest{len(guests)}"
        directory.mkdir()
        guests.append(Guest(directory, image, key, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.kill()
