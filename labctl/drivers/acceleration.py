"""Do guests run on this host's processor, or must QEMU emulate one? Found out by running code."""

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from labctl.drivers.command import CommandError, run
from labctl.errors import HostError, InvalidError
from labctl.settings import Settings, make_passable

QEMU = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
OVERRIDE = "LABCTL_ACCELERATION"

# Real KVM needs about 0.3 s for the trial, of which most is QEMU and its firmware. A busy host
# gets ten times that and more, because a wrong "emulation" is remembered.
_TRIAL_DEADLINE = timedelta(seconds=5)
_DONE = 0x2A
_DONE_EXIT_CODE = _DONE << 1 | 1  # what QEMU's isa-debug-exit makes of the byte
# QEMU's virtio disk must not be smaller than what the firmware reads of it.
_TRIAL_DISK_SIZE = 2**20

# An emulated Debian 12 takes 80 to 90 s to the end of cloud-init, with 1 vCPU and an idle host; on
# hardware it is usually there before 20 s. Deadlines for boots are written for hardware.
_EMULATED_BOOT_FACTOR = 5.0

# A boot sector that switches to 64 bits and counts there. Real mode alone proves nothing: a
# paravirtual KVM interprets guests that do not know it, one instruction at a time, so that firmware
# passes in 1.5 s while a kernel is not unpacked within hours.
_TRIAL_CODE = (
    # 16 bits, loaded at 0x7c00
    ("fa", "cli: there is no interrupt table for what follows"),
    ("66 31 c0", "xor eax, eax"),
    ("8e d8", "mov ds, ax"),
    ("8e c0", "mov es, ax"),
    ("66 bf 00 10 00 00", "mov edi, 0x1000: the page tables lie at 0x1000, 0x2000 and 0x3000"),
    ("0f 22 df", "mov cr3, edi"),
    ("b9 00 0c", "mov cx, 0xc00: three pages of double words"),
    ("66 f3 ab", "rep stosd: clear them"),
    (
        "c7 06 00 10 03 20",
        "mov word [0x1000], 0x2003: level 4 points to level 3, present, writable",
    ),
    ("c7 06 00 20 03 30", "mov word [0x2000], 0x3003: level 3 points to level 2"),
    ("c7 06 00 30 83 00", "mov word [0x3000], 0x0083: level 2 maps the first 2 MiB to themselves"),
    ("0f 20 e0", "mov eax, cr4"),
    ("0c 20", "or al, 0x20: physical address extension"),
    ("0f 22 e0", "mov cr4, eax"),
    ("66 b9 80 00 00 c0", "mov ecx, 0xc0000080: the register EFER"),
    ("0f 32", "rdmsr"),
    ("80 cc 01", "or ah, 1: long mode enable"),
    ("0f 30", "wrmsr"),
    ("0f 01 16 74 7c", "lgdt [0x7c74]"),
    ("0f 20 c0", "mov eax, cr0"),
    ("66 0d 01 00 00 80", "or eax, 0x80000001: protection and paging"),
    ("0f 22 c0", "mov cr0, eax"),
    ("ea 54 7c 08 00", "jmp 0x08:0x7c54: into 64 bits"),
    # 64 bits, at 0x7c54
    ("b9 00 e1 f5 05", "mov ecx, 100000000"),
    ("ff c9", "dec ecx"),
    ("75 fc", "jnz to the dec: 50 ms on a processor, minutes when interpreted"),
    (f"b0 {_DONE:02x}", "mov al, done"),
    ("e6 f4", "out 0xf4, al: QEMU exits"),
    ("f4", "hlt"),
    ("eb fd", "jmp to the hlt"),
    # Descriptors, at 0x7c64, and at 0x7c74 what lgdt reads
    ("00 00 00 00 00 00 00 00", "the null descriptor"),
    ("00 00 00 00 00 9b 20 00", "0x08: code, 64 bits, present"),
    ("0f 00 64 7c 00 00", "limit 15, base 0x7c64"),
)


class AccelerationKind(StrEnum):
    """How QEMU runs guests, as its -accel option names it."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """The verdict, and what follows from it."""

    kind: AccelerationKind
    reason: str

    @property
    def cpu_model(self) -> str:
        """For the domain: "host-passthrough", or the model that is to be emulated."""
        # Richer models boot no faster when emulated, and `max` can abort under a half-working KVM.
        return "host-passthrough" if self.kind is AccelerationKind.KVM else "qemu64"

    @property
    def boot_factor(self) -> float:
        """By how much deadlines of a boot grow on this host; 1.0 with KVM."""
        return 1.0 if self.kind is AccelerationKind.KVM else _EMULATED_BOOT_FACTOR


def find_acceleration(
    settings: Settings, *, fresh: bool = False, environment: Mapping[str, str] | None = None
) -> Acceleration:
    """Try KVM once for this host, boot and user, and remember the verdict in the cache directory.

    LABCTL_ACCELERATION=kvm|tcg decides without a trial; `fresh` forgets what was remembered.
    Raises InvalidError for another value, HostError when QEMU is not installed.
    """
    chosen = (os.environ if environment is None else environment).get(OVERRIDE, "")
    if chosen:
        return _read_override(chosen)
    fingerprint = _read_fingerprint()
    path = settings.cache_dir / "acceleration.json"
    found = None if fresh else _load(path, fingerprint)
    if found is None:
        found = try_kvm()
        _save(path, fingerprint, found)
    return found


def try_kvm(*, deadline: timedelta = _TRIAL_DEADLINE) -> Acceleration:
    """Run the trial now. Raises HostError when QEMU is not installed."""
    if not KVM_DEVICE.exists():
        return _emulation(f"{KVM_DEVICE} does not exist")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return _emulation(f"{KVM_DEVICE} cannot be opened by this user")
    exit_code, message = run_trial(accelerator="kvm", cpu_model="host", deadline=deadline)
    if exit_code == _DONE_EXIT_CODE:
        return Acceleration(kind=AccelerationKind.KVM, reason="a guest ran 64-bit code under KVM")
    if exit_code is None:
        return _emulation(
            f"{KVM_DEVICE} opens, but a guest did not get through 64-bit code "
            f"within {deadline.total_seconds():g} s"
        )
    return _emulation(f"QEMU ended with exit code {exit_code} under KVM: {message or 'no message'}")


def run_trial(*, accelerator: str, cpu_model: str, deadline: timedelta) -> tuple[int | None, str]:
    """QEMU's exit code, None for a missed deadline, and the last line that it said."""
    with tempfile.TemporaryDirectory(prefix="labctl-trial-") as directory:
        disk = Path(directory) / "disk.img"
        disk.write_bytes(_boot_sector().ljust(_TRIAL_DISK_SIZE, b"\0"))
        # A comma in the name of the temporary directory would end QEMU's option there.
        drive = f"file={str(disk).replace(',', ',,')},format=raw,if=virtio,readonly=on"
        arguments = [
            *(QEMU, "-accel", accelerator, "-cpu", cpu_model, "-machine", "pc", "-m", "16"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive", drive),
        ]
        try:
            done = run(arguments, timeout=deadline, check=False)
        except CommandError:
            return None, ""
    lines = done.stderr.strip().splitlines()
    return done.exit_code, lines[-1] if lines else ""


def _boot_sector() -> bytes:
    code = bytes.fromhex("".join(digits for digits, _ in _TRIAL_CODE))
    return code.ljust(510, b"\0") + b"\x55\xaa"


def _emulation(reason: str) -> Acceleration:
    return Acceleration(kind=AccelerationKind.TCG, reason=reason)


def _read_override(value: str) -> Acceleration:
    try:
        kind = AccelerationKind(value)
    except ValueError as error:
        raise InvalidError(
            f"{OVERRIDE} is {value!r}", hint=f"set {OVERRIDE} to kvm or tcg, or unset it"
        ) from error
    return Acceleration(kind=kind, reason=f"{OVERRIDE} says so")


def _read_fingerprint() -> dict[str, str]:
    """Everything that, when it changes, may change the verdict."""
    program = shutil.which(QEMU)
    if program is None:
        raise HostError(f"program {QEMU!r} is not installed", hint="run: labctl doctor --fix")
    qemu = Path(program).stat()
    try:
        device = KVM_DEVICE.stat()
        kvm = f"{device.st_mode:o} {device.st_uid}:{device.st_gid} {device.st_rdev}"
    except FileNotFoundError:
        kvm = "absent"
    return {
        "kernel": platform.release(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "processor": _read_processor(),
        # A new version is a new file; asking QEMU for its version would cost a process each time.
        "qemu": f"{program} {qemu.st_size} {qemu.st_mtime_ns}",
        "kvm": kvm,
        "mayOpen": str(os.access(KVM_DEVICE, os.R_OK | os.W_OK)),
        "user": str(os.geteuid()),
    }


def _read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _load(path: Path, fingerprint: dict[str, str]) -> Acceleration | None:
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
        if remembered["host"] != fingerprint:
            return None
        return Acceleration(
            kind=AccelerationKind(remembered["kind"]), reason=str(remembered["reason"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: it is only a cache


def _save(path: Path, fingerprint: dict[str, str], found: Acceleration) -> None:
    text = json.dumps({"kind": found.kind, "reason": found.reason, "host": fingerprint}, indent=2)
    # A state directory that cannot be written is reported by what has to write there; the verdict
    # is right without its memory.
    with contextlib.suppress(OSError):
        make_passable(path.parent)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as part:
            part.write(text + "\n")
        Path(part.name).replace(path)
