"""What `labctl doctor` looks at: a check for each prerequisite, with the command that mends it."""

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from shlex import quote

from labctl.drivers.acceleration import (
    KVM_DEVICE,
    QEMU,
    AccelerationKind,
    find_acceleration,
)
from labctl.drivers.command import Completed, run
from labctl.drivers.host import read_host_facts
from labctl.drivers.host_access import (
    Permission,
    User,
    find_barriers,
    find_qemu_user,
    is_local,
    is_system,
    may_access,
)
from labctl.drivers.host_fixes import (
    PATH_OF_ROOT,
    ask,
    describe_daemon_start,
    ensure_daemons,
    ensure_kvm_access,
    ensure_packages,
    ensure_passable,
    ensure_private,
)
from labctl.drivers.ports import choose_ports
from labctl.errors import LabError
from labctl.settings import Settings

_PATIENCE = timedelta(seconds=20)
_REAPING = timedelta(seconds=1)
_PROC = Path("/proc")

_GIB = 2**30
_SCARCE_SPACE, _LITTLE_SPACE = 2 * _GIB, 10 * _GIB  # an image build takes 1 GiB
_SCARCE_MEMORY, _LITTLE_MEMORY = _GIB // 2, 4 * _GIB  # an emulated instance takes up to 1.2 GiB
_PORTS = 30  # for ten instances

_IMAGE_TOOLS = {
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "syslinux": "syslinux",
    "mformat": "mtools",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "unshare": "util-linux",
    "dpkg-deb": "dpkg",
}
_NAT_TOOLS = {"dnsmasq": "dnsmasq-base", "ip": "iproute2", "iptables": "iptables"}


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"  # labctl works, but slower or with a limit
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One prerequisite and how it is."""

    name: str
    status: Status
    found: str
    hint: str = ""  # the command that mends it, or what to do
    fix: Callable[[], str] | None = field(default=None, compare=False)  # says what it did


def run_checks(settings: Settings, *, fresh: bool = False) -> list[Check]:
    """Look at every prerequisite of this host; `fresh` tries the acceleration again."""
    checks = [_check_qemu(), *_check_libvirt(settings.uri)]
    if is_local(settings.uri):
        checks += _check_acceleration(settings, fresh=fresh)
        try:
            user = find_qemu_user(settings.uri)
        except LabError:
            hint = "mend the connection to libvirt first"
            for name in ("kvm device", "state directory"):
                found = "libvirt does not tell as which user QEMU runs"
                checks.append(_warning(name, found, hint))
        else:
            checks.append(_check_kvm_device(user, is_shared=is_system(settings.uri)))
            checks.append(_check_state_dir(settings, user))
    checks += [_check_store(settings), *_check_resources(settings), _check_ports()]
    checks.append(_check_tools("image tools", _IMAGE_TOOLS, Status.PROBLEM))
    if is_system(settings.uri):
        checks.append(_check_tools("nat networks", _NAT_TOOLS, Status.WARNING))
    checks.append(_check_reaping())
    return checks


def mend(checks: Sequence[Check]) -> Iterator[tuple[Check, str]]:
    """Mend what is safe to mend, one after the other; say for each what was done or why not."""
    for check in checks:
        if check.status is not Status.OK and check.fix is not None:
            try:
                yield check, check.fix()
            except (LabError, OSError) as error:
                yield check, f"not mended: {error}"


def _ok(name: str, found: str) -> Check:
    return Check(name=name, status=Status.OK, found=found)


def _warning(name: str, found: str, hint: str) -> Check:
    return Check(name=name, status=Status.WARNING, found=found, hint=hint)


def _is_root() -> bool:
    return os.geteuid() == 0


def _check_qemu() -> Check:
    if shutil.which(QEMU) is None:
        return _missing("qemu", [QEMU], ["qemu-system-x86"], Status.PROBLEM)
    try:
        version = run([QEMU, "--version"], timeout=_PATIENCE).stdout.splitlines()[0]
    except (LabError, IndexError) as error:
        hint = "run: apt-get install --reinstall qemu-system-x86"
        return Check(name="qemu", status=Status.PROBLEM, found=str(error), hint=hint)
    return _ok("qemu", version)


def _check_libvirt(uri: str) -> Iterator[Check]:
    connection = ask("virsh", "-c", uri, "version")
    libvirt_works = connection.exit_code == 0
    hint, fix = "check the host name, the SSH key and libvirtd over there", None
    if is_system(uri):
        hint, fix = describe_daemon_start(), ensure_daemons if _is_root() else None
    elif is_local(uri):
        hint = f"run: virsh -c {quote(uri)} version, and look at ~/.cache/libvirt"
    yield _judge(
        "libvirt", connection, f"{uri} answers: {_last_line(connection.stdout)}", hint, fix
    )
    if is_system(uri):
        if not _is_root():
            # Only root may ask it. libvirtd starts it where systemd runs.
            yield _ok("virtlogd", "not asked: needs root")
        else:
            answer = ask("virt-admin", "-c", "virtlogd:///system", "server-list")
            found = "answers"
            if not libvirt_works:
                fix = None  # the check before it starts both
            yield _judge("virtlogd", answer, found, hint, fix)


def _judge(
    name: str, answer: Completed, found: str, hint: str, fix: Callable[[], str] | None
) -> Check:
    if answer.exit_code == 0:
        return _ok(name, found)
    problem = _last_line(answer.stderr) or f"exit code {answer.exit_code}"
    return Check(name=name, status=Status.PROBLEM, found=problem, hint=hint, fix=fix)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].removeprefix("error: ")


def _check_acceleration(settings: Settings, *, fresh: bool) -> Iterator[Check]:
    try:
        found = find_acceleration(settings, fresh=fresh)
    except LabError as error:
        yield Check(name="acceleration", status=Status.PROBLEM, found=error.brief, hint=error.hint)
        return
    if found.kind is AccelerationKind.KVM:
        yield _ok("acceleration", f"KVM: {found.reason}")
        return
    slow = f"instances work, but deadlines of boots are {found.boot_factor:g} times as long"
    cure = "real nested virtualisation can only be given by the host above"
    if not KVM_DEVICE.exists():
        cure = "enable virtualisation in the firmware, or nested virtualisation in the host above"
    elif not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        cure = f"run as root: usermod -a -G kvm {quote(User.from_id(os.geteuid()).name)}"
    yield _warning("acceleration", f"emulation: {found.reason}", f"{slow}; {cure}")


def _check_kvm_device(user: User, *, is_shared: bool) -> Check:
    name = "kvm device"
    if not KVM_DEVICE.exists():
        return _ok(name, f"{KVM_DEVICE} does not exist")
    mode = stat.S_IMODE(KVM_DEVICE.stat().st_mode)
    if may_access(user, KVM_DEVICE, Permission.USE):
        return _ok(name, f"{user.name} may open {KVM_DEVICE} (mode {mode:04o})")
    found = f"{user.name}, as whom QEMU runs, may not open {KVM_DEVICE} (mode {mode:04o})"
    if not is_shared:
        hint = f"run as root: usermod -a -G kvm {quote(user.name)}; then log in again"
        return _warning(name, found, hint)
    # libvirt then asks QEMU for its abilities at each define: 88 s instead of 0.07 s.
    return Check(
        name=name,
        status=Status.PROBLEM,
        found=f"{found}; every new instance would take over a minute to define",
        hint=f"run as root: chown root:kvm {KVM_DEVICE}; chmod 0660 {KVM_DEVICE}; "
        f"usermod -a -G kvm {quote(user.name)}",
        fix=partial(ensure_kvm_access, user) if _is_root() else None,
    )


def _check_state_dir(settings: Settings, user: User) -> Check:
    name, place = "state directory", settings.state_dir
    facts = read_host_facts(place)
    if not facts.path.is_dir() or not os.access(facts.path, os.W_OK | os.X_OK):
        return Check(
            name=name,
            status=Status.PROBLEM,
            found=f"{str(facts.path)!r} is not a directory in which this user may write",
            hint="choose another directory with --state-dir or LABCTL_STATE_DIR",
        )
    barriers = [
        barrier
        for inner in (place, settings.blobs_dir, *_scale_set_dirs(settings))
        for barrier in find_barriers(user, inner)
    ]
    barriers = list(dict.fromkeys(barriers))
    if not barriers:
        return _ok(name, f"{user.name}, as whom QEMU runs, reaches {str(place)!r}")
    # Opening somebody's home directory is for its owner to decide; ours we may open.
    own = all(barrier.is_relative_to(place) for barrier in barriers)
    names = " ".join(quote(str(barrier)) for barrier in barriers)
    return Check(
        name=name,
        status=Status.PROBLEM,
        found=f"{user.name}, as whom QEMU runs, may not pass {names}",
        hint=f"run: chmod o+x {names}; or choose another directory with --state-dir",
        fix=partial(ensure_passable, barriers) if own else None,
    )


def _scale_set_dirs(settings: Settings) -> list[Path]:
    parent = settings.scale_set_dir("any").parent
    return [parent, *sorted(parent.iterdir())] if os.access(parent, os.R_OK | os.X_OK) else [parent]


def _check_store(settings: Settings) -> Check:
    name, path = "store", settings.database
    if not os.access(path, os.F_OK):
        return _ok(name, "none yet")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 == 0:
        return _ok(name, f"only its owner may read {str(path)!r}")
    return Check(
        name=name,
        status=Status.PROBLEM,
        found=f"{str(path)!r} has mode {mode:04o}, and holds private keys",
        hint=f"run: chmod 0600 {quote(str(path))}",
        fix=partial(ensure_private, path),
    )


def _check_resources(settings: Settings) -> Iterator[Check]:
    facts = read_host_facts(settings.state_dir)
    yield _grade(
        "free space",
        facts.free_space,
        (_SCARCE_SPACE, _LITTLE_SPACE),
        f"at {str(facts.path)!r}",
        "run: labctl image list, and delete what is not needed; or choose --state-dir elsewhere",
    )
    yield _grade(
        "free memory",
        facts.free_memory,
        (_SCARCE_MEMORY, _LITTLE_MEMORY),
        f"of {facts.memory / _GIB:.1f} GiB, {facts.cpus} processors",
        "end other programs, or lower the capacity and the memory of the scale sets",
    )


def _grade(name: str, free: int, bounds: tuple[int, int], where: str, hint: str) -> Check:
    scarce, little = bounds
    found = f"{free / _GIB:.1f} GiB {where}"
    if free >= little:
        return _ok(name, found)
    status = Status.PROBLEM if free < scarce else Status.WARNING
    return Check(name=name, status=status, found=found, hint=hint)


def _check_ports() -> Check:
    try:
        choose_ports(_PORTS, taken=())
    except LabError as error:
        return Check(name="ports", status=Status.PROBLEM, found=error.brief, hint=error.hint)
    return _ok("ports", f"{_PORTS} are free on 127.0.0.1")


def _check_tools(name: str, tools: dict[str, str], status: Status) -> Check:
    missing = [tool for tool in tools if shutil.which(tool, path=PATH_OF_ROOT) is None]
    if missing:
        return _missing(name, missing, sorted({tools[tool] for tool in missing}), status)
    return _ok(name, ", ".join(tools))


def _missing(name: str, programs: Sequence[str], packages: Sequence[str], status: Status) -> Check:
    can_install = _is_root() and shutil.which("apt-get") is not None
    return Check(
        name=name,
        status=status,
        found=f"not installed: {', '.join(programs)}",
        hint=f"run as root: apt-get install --no-install-recommends {' '.join(packages)}",
        fix=partial(ensure_packages, packages) if can_install else None,
    )


def _check_reaping() -> Check:
    deadline = time.monotonic() + _REAPING.total_seconds()
    left = find_zombies(_PROC)
    while left and time.monotonic() < deadline:
        threading.Event().wait(0.1)
        left &= find_zombies(_PROC)
    if not left:
        return _ok("process 1", "leaves no ended processes behind")
    return _warning(
        "process 1",
        f"does not reap ended processes; {len(left)} are left",
        "start the container with an init, for example: docker run --init",
    )


def find_zombies(proc: Path) -> set[str]:
    """Identifiers of the ended processes that process 1 has not reaped."""
    found = set()
    for path in proc.glob("[0-9]*/stat"):
        try:
            text = path.read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # reaped meanwhile
        state, parent = text.rpartition(")")[2].split()[:2]
        if (state, parent) == ("Z", "1"):
            found.add(path.parent.name)
    return found
