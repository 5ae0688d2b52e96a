"""The floor: plain QEMU with the disks, arguments and watching that labctl's instances get.

What labctl adds is left out: its store, its loop, libvirt, the start of a program. The functions
that make disks and seeds, climb the readiness ladder and ask for health are the same.
"""

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from labctl.controller.build import build_seed, deadlines, probe_target, ssh_target
from labctl.controller.clock import now
from labctl.controller.lab import Lab
from labctl.controller.signals import Signal
from labctl.drivers.disks import OsGenerationFiles, ensure_overlay, os_generation_files
from labctl.drivers.probe import check
from labctl.drivers.readiness import climb
from labctl.drivers.seed import ensure_seed
from labctl.model.instance import Generation, HealthState, Identity, Instance, Power, Wanted
from labctl.model.plan import ScaleSet
from tests.bench.sampled import processor_of

_PACE = 0.5  # seconds between two health questions, as in labctl/controller/prober.py
_PROBE = timedelta(seconds=5)
_GIVE_UP = 300.0  # seconds
_POWER_DOWN = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The command line of an instance that labctl has started, and what in it is its own."""

    words: tuple[str, ...]
    name: str
    folder: Path
    identity: Identity
    generation: int
    digest: str

    def fill(
        self, identity: Identity, files: OsGenerationFiles, digest: str, log: Path
    ) -> list[str]:
        """The same command line for another instance."""
        own = os_generation_files(self.folder, self.name, self.generation)
        replaced = {
            str(own.overlay): str(files.overlay),
            str(own.seed): str(files.seed),
            f"{self.digest}.qcow2": f"{digest}.qcow2",
            str(self.identity.uuid): str(identity.uuid),
            self.identity.mac: identity.mac,
            f":{self.identity.ssh_port}-": f":{identity.ssh_port}-",
            f":{self.identity.agent_port}-": f":{identity.agent_port}-",
            "/dev/fdset/0": str(log),  # virtlogd's end of the serial log
        }
        return [_replace(word, replaced) for word in self.words]


def read_template(view: ScaleSet, instance: Instance, identity: Identity, folder: Path) -> Template:
    """Take the command line of the QEMU process that runs this instance."""
    assert instance.domain.power is Power.RUNNING or instance.current.started_at is not None
    return Template(
        words=tuple(_strip_libvirt(_find_command_line(identity))),
        name=instance.name,
        folder=folder,
        identity=identity,
        generation=instance.generation,
        digest=instance.current.image_digest,
    )


class PlainInstance:
    """One QEMU process, started and watched by hand."""

    def __init__(self, lab: Lab, view: ScaleSet, template: Template, folder: Path, number: int):
        self._lab = lab
        self._model = view.models[view.model_revision]
        self._template = template
        self._folder = folder
        self.name = f"floor-{secrets.token_hex(3)}_{number}"
        self._number = number
        self._log = folder / f"{self.name}.console.log"
        self._monitor = folder / f"{number}-{secrets.token_hex(3)}.sock"
        self._process: subprocess.Popen[bytes] | None = None
        with lab.database.read() as connection:
            self._identity = lab.new_identity(None)(connection, self.name, number)

    def prepare(self, generation: int, digest: str) -> None:
        """Make overlay and seed, as labctl does before it stops anything."""
        moment = now()
        record = Generation(
            number=generation,
            image_version="",
            image_digest=digest,
            model_revision=1,
            prepared=True,
        )
        instance = Instance(
            name=self.name,
            ordinal=self._number,
            wanted=Wanted.RUNNING,
            generation=generation,
            generations=(record,),
            created_at=moment,
        )
        files = self._files(generation)
        ensure_overlay(files, self._lab.blob(digest), self._model.os_disk.size)
        ensure_seed(
            files.seed, build_seed(self._lab, instance, record, self._model, self._identity)
        )

    def start(self, generation: int, digest: str) -> None:
        """Power on."""
        self._log.touch()
        words = self._template.fill(self._identity, self._files(generation), digest, self._log)
        monitor = f"socket,id=charmonitor,path={self._monitor},server=on,wait=off"
        self._process = subprocess.Popen(
            [*words, "-chardev", monitor, "-mon", "chardev=charmonitor,id=monitor,mode=control"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / f"{self.name}.stderr").open("wb"),
        )

    def await_ready(self) -> None:
        """Until custom data has run."""
        assert self._process is not None
        signal = Signal()
        process = self._process
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1.0):
                if process.poll() is not None:
                    signal.fail(f"QEMU ended with {process.returncode}")
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            report = climb(
                ssh_target(self._lab, self._identity),
                console_log=self._log,
                console_offset=0,
                deadlines=deadlines(self._lab, self._model),
                failed=signal,
            )
            report.connection.close()
        finally:
            over.set()

    def await_healthy(self) -> None:
        """Until the health agent says so."""
        target = probe_target(self._model, self._identity)
        assert target is not None
        end = time.monotonic() + _GIVE_UP
        pause = threading.Event()
        while check(target, timeout=_PROBE).state is not HealthState.HEALTHY:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not become healthy")
            pause.wait(_PACE)

    def power_down(self) -> None:
        """Press the power button and wait until QEMU has ended."""
        assert self._process is not None
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(_POWER_DOWN)
            monitor.connect(str(self._monitor))
            stream = monitor.makefile("rwb")
            stream.readline()  # the greeting
            for command in ("qmp_capabilities", "system_powerdown"):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
                stream.flush()
                stream.readline()
            self._process.wait(_POWER_DOWN)
        self._log.unlink()

    @property
    def processor(self) -> float:
        """Processor seconds of its QEMU process."""
        return 0.0 if self._process is None else processor_of(self._process.pid)

    def kill(self) -> None:
        """Cut the power and delete the files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for path in self._folder.glob(f"{self.name}.*"):
            path.unlink()
        self._monitor.unlink(missing_ok=True)

    def _files(self, generation: int) -> OsGenerationFiles:
        return os_generation_files(self._folder, self.name, generation)


class Floor:
    """Plain instances, as many as asked for; gone at the end of the block."""

    def __init__(self, lab: Lab, view: ScaleSet, template: Template, folder: Path) -> None:
        self._lab = lab
        self._view = view
        self._template = template
        self._folder = folder
        folder.mkdir(mode=0o711, exist_ok=True)
        self._instances: list[PlainInstance] = []

    def __enter__(self) -> "Floor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._instances:
            self._instances.pop().kill()

    def make(self, number: int) -> PlainInstance:
        instance = PlainInstance(self._lab, self._view, self._template, self._folder, number)
        self._instances.append(instance)
        return instance

    @property
    def processor(self) -> float:
        """Processor seconds of every QEMU process that runs."""
        return sum(instance.processor for instance in self._instances)

    def provision(self, count: int, digest: str) -> float:
        """Seconds from nothing to `count` healthy instances."""
        began = time.monotonic()
        slots = threading.Semaphore(self._lab.boots_at_once)

        def bring_up(number: int) -> None:
            instance = self.make(number)
            instance.prepare(1, digest)
            with slots:
                instance.start(1, digest)
                instance.await_ready()
            instance.await_healthy()

        with ThreadPoolExecutor(count) as pool:
            boots = pool.map(bring_up, range(count))
            try:
                list(boots)
            except BaseException:
                self.close()  # those that still wait for a guest shall give up
                raise
        return time.monotonic() - began


def swap(instance: PlainInstance, generation: int, digest: str) -> float:
    """Seconds from the power button to healthy on another disk, which is there already."""
    began = time.monotonic()
    instance.power_down()
    instance.start(generation, digest)
    instance.await_ready()
    instance.await_healthy()
    return time.monotonic() - began


def _replace(word: str, replaced: Mapping[str, str]) -> str:
    for old, new in replaced.items():
        word = word.replace(old, new)
    return word


def _find_command_line(identity: Identity) -> list[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(identity.uuid) in words and "-name" in words:
            return [word for word in words if word]
    raise RuntimeError(f"no QEMU process has the UUID {identity.uuid}")


def _strip_libvirt(words: list[str]) -> list[str]:
    """Leave out what speaks with libvirt only: monitor, secret, log by descriptor, paused start."""
    # -no-shutdown: libvirt ends QEMU itself when the guest is off; a plain one shall end.
    alone = {"-S", "-no-shutdown"}
    kept: list[str] = []
    skips = False
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if skips:
            skips = False
        elif word in alone:
            pass
        elif (
            word in {"-name", "-add-fd", "-mon"}
            or (word == "-object" and "masterKey0" in value)
            or (word == "-chardev" and "charmonitor" in value)
        ):
            skips = True
        else:
            kept.append(word)
    return kept
