"""The domain of an instance: its parts, its libvirt XML, and the mark that says whose it is."""

import hashlib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import assert_never
from uuid import UUID
from xml.etree import ElementTree as ET

from labctl.errors import InvalidError

METADATA_NAMESPACE = "https://labctl.dev/domain/1"
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
_MIB = 2**20
_SERIAL_MAX = 20
# QEMU takes up to 1 GiB for translated code unless told otherwise. A kernel and busybox fill
# 47 MiB; when the cache is full it is emptied, which costs time and loses nothing.
_TRANSLATION_CACHE_MIB = 128
# libvirt fills the root bus from slot 1 upwards and does not know of this device.
_USER_NIC_SLOT = "0x1c"

ET.register_namespace("labctl", METADATA_NAMESPACE)
ET.register_namespace("qemu", _QEMU_NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortForward:
    """A TCP port on 127.0.0.1 of the host that reaches a port of the guest."""

    host_port: int
    guest_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNetwork:
    """QEMU's own NAT (slirp): no root, no bridge, reached by forwarded ports only."""

    forwards: tuple[PortForward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NatNetwork:
    """A libvirt network, by name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiskFile:
    """A data disk as the domain sees it: qcow2, found in the guest by its serial."""

    name: str
    path: Path
    serial: str  # at most 20 characters, or virtio cuts it


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareFile:
    """A file that the guest finds in QEMU's fw_cfg under a name."""

    name: str
    path: Path


class Hardware(Enum):
    """Which devices the guest has drivers for, and what its system wants of the machine."""

    LINUX = auto()
    WINDOWS = auto()  # SATA and e1000e, for which every Windows has drivers
    WINDOWS_VIRTIO = auto()  # the image has the virtio drivers

    @property
    def is_windows(self) -> bool:
        """Is the guest Windows?"""
        return self is not Hardware.LINUX

    @property
    def has_virtio(self) -> bool:
        """May disks and network card be virtio devices?"""
        return self is not Hardware.WINDOWS


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """Everything that the XML of an instance's domain depends on. Paths are absolute."""

    name: str
    scale_set: str
    uuid: UUID
    generation: int
    vcpus: int
    memory: int  # bytes
    acceleration_kind: str  # "kvm" or "tcg"
    cpu_model: str  # a QEMU model such as "qemu64", or "host-passthrough"
    os_disk: Path
    base_image: Path | None = None  # what os_disk is an overlay on; None: read from its header
    seed: Path
    firmware_file: FirmwareFile | None = None
    hardware: Hardware = Hardware.LINUX
    data_disks: tuple[DataDiskFile, ...]
    mac: str
    network: UserNetwork | NatNetwork
    console_log: Path
    state_dir: Path

    @property
    def config_hash(self) -> str:
        """Changes exactly when the XML changes, also because labctl learnt to write it better."""
        without_hash = _serialize(_build(self, config_hash=""))
        return hashlib.sha256(without_hash.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainTag:
    """The mark that labctl leaves in the domains it defines."""

    scale_set: str
    name: str
    generation: int
    config_hash: str
    state_dir: Path


def build_domain_xml(config: DomainConfig) -> str:
    """Raises InvalidError for what XML or libvirt cannot hold (control characters in a path)."""
    return _serialize(_build(config, config_hash=config.config_hash))


def read_domain_tag(metadata: str) -> DomainTag | None:
    """Read the element that libvirt kept for our namespace; None when it is not as we write it."""
    try:
        element = ET.fromstring(metadata)  # noqa: S314 - libvirt wrote it, from what we wrote
        return DomainTag(
            scale_set=element.attrib["scaleSet"],
            name=element.attrib["name"],
            generation=int(element.attrib["generation"]),
            config_hash=element.attrib["config"],
            state_dir=Path(element.attrib["state"]),
        )
    except (ET.ParseError, KeyError, ValueError):
        return None


def _serialize(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _build(config: DomainConfig, *, config_hash: str) -> ET.Element:
    domain = ET.Element("domain", type="kvm" if config.acceleration_kind == "kvm" else "qemu")
    _text(domain, "name", config.name)
    _text(domain, "uuid", str(config.uuid))
    tag = ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{METADATA_NAMESPACE}}}instance")
    tag.attrib.update(
        scaleSet=config.scale_set,
        name=config.name,
        generation=str(config.generation),
        config=config_hash,
        state=_checked(config.state_dir),
    )
    _text(domain, "memory", str(config.memory), unit="bytes")
    _text(domain, "vcpu", str(config.vcpus))
    _add_machine(domain, config)
    if config.firmware_file is not None:
        system = ET.SubElement(domain, "sysinfo", type="fwcfg")
        file = _checked_for_firmware(config.firmware_file.path)
        ET.SubElement(system, "entry", name=config.firmware_file.name, file=file)
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    # The panicked guest stays, paused, so that the crash outlives a restart of libvirtd.
    _text(domain, "on_crash", "preserve")
    devices = ET.SubElement(domain, "devices")
    _add_disks(devices, config)
    # Without this libvirt adds a USB controller and a balloon, which cost boot time.
    ET.SubElement(devices, "controller", type="usb", index="0", model="none")
    if isinstance(config.network, NatNetwork):
        _add_nat_interface(devices, config, config.network)
    _add_console(devices, config.console_log)
    # The boot loader of Windows draws; nobody listens, so the screen is seen by `virsh screenshot`.
    video = "vga" if config.hardware.is_windows else "none"
    ET.SubElement(ET.SubElement(devices, "video"), "model", type=video)
    ET.SubElement(devices, "memballoon", model="none")
    if config.hardware.has_virtio:
        rng = ET.SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")
    # Windows tells a hypervisor like its own of its panics, which takes KVM.
    if not config.hardware.is_windows:
        ET.SubElement(devices, "panic", model="isa")
    elif config.acceleration_kind == "kvm":
        ET.SubElement(devices, "panic", model="hyperv")
    match config.network:
        case UserNetwork():
            _add_user_network(domain, config, config.network)
        case NatNetwork():
            pass
        case _:
            assert_never(config.network)
    return domain


def _add_machine(domain: ET.Element, config: DomainConfig) -> None:
    system = ET.SubElement(domain, "os")
    # Under emulation Linux takes a tenth less processor time to come up on q35 than on pc.
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    ET.SubElement(system, "bootmenu", enable="no")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    ET.SubElement(features, "smm", state="off")  # serves secure boot only
    # QEMU has the enlightenments with KVM only.
    is_enlightened = config.hardware.is_windows and config.acceleration_kind == "kvm"
    if is_enlightened:
        _add_enlightenments(features)
    if config.acceleration_kind != "kvm":
        tcg = ET.SubElement(features, "tcg")
        _text(tcg, "tb-cache", str(_TRANSLATION_CACHE_MIB), unit="MiB")
    if config.cpu_model == "host-passthrough":
        ET.SubElement(domain, "cpu", mode="host-passthrough", check="none", migratable="off")
    else:
        cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", config.cpu_model, fallback="forbid")
    # Windows takes the clock of the machine for its wall clock.
    offset = "localtime" if config.hardware.is_windows else "utc"
    clock = ET.SubElement(domain, "clock", offset=offset)
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    if is_enlightened:
        ET.SubElement(clock, "timer", name="hypervclock", present="yes")


def _add_enlightenments(features: ET.Element) -> None:
    hyperv = ET.SubElement(features, "hyperv", mode="custom")
    for name in ("relaxed", "vapic"):
        ET.SubElement(hyperv, name, state="on")
    ET.SubElement(hyperv, "spinlocks", state="on", retries="8191")
    for name in ("vpindex", "synic", "stimer", "reset", "frequencies"):
        ET.SubElement(hyperv, name, state="on")


def _add_disks(devices: ET.Element, config: DomainConfig) -> None:
    bus, prefix = ("virtio", "vd") if config.hardware.has_virtio else ("sata", "sd")
    os_disk = _add_disk(
        devices, config.os_disk, device=f"{prefix}a", bus=bus, serial="os", alias="ua-os"
    )
    ET.SubElement(os_disk, "boot", order="1")
    if config.base_image is not None:
        base = ET.SubElement(os_disk, "backingStore", type="file")
        ET.SubElement(base, "format", type="qcow2")
        source = ET.SubElement(base, "source", file=_checked(config.base_image))
        # The base is shared and world-readable; its owner must not change under other instances.
        ET.SubElement(source, "seclabel", model="dac", relabel="no")
        ET.SubElement(base, "backingStore")
    is_cdrom = config.hardware.is_windows
    seed = _add_disk(
        devices,
        config.seed,
        # Windows reads ISO 9660 on CD-ROMs only; Debian's cloud kernel has no driver for this one.
        device=("sdb" if is_cdrom else "vdb"),
        bus=("sata" if is_cdrom else "virtio"),
        kind="cdrom" if is_cdrom else "disk",
        serial="seed",
        alias="ua-seed",
        file_format="raw",
    )
    ET.SubElement(seed, "readonly")
    for index, disk in enumerate(config.data_disks):
        if len(disk.serial) > _SERIAL_MAX:
            raise InvalidError(
                f"serial {disk.serial!r} of data disk {disk.name!r} is too long",
                hint=f"virtio keeps {_SERIAL_MAX} characters; choose a shorter disk name",
            )
        data_disk = _add_disk(
            devices,
            disk.path,
            device=f"{prefix}{_drive_letters(index + 2)}",
            bus=bus,
            serial=disk.serial,
            alias=f"ua-data-{disk.name}",
        )
        # Nothing below it, whatever its header says.
        ET.SubElement(data_disk, "backingStore")


def _add_disk(
    devices: ET.Element,
    path: Path,
    *,
    device: str,
    bus: str,
    serial: str,
    alias: str,
    kind: str = "disk",
    file_format: str = "qcow2",
) -> ET.Element:
    disk = ET.SubElement(devices, "disk", type="file", device=kind)
    # writeback obeys the guest's flushes, and unlike none works on tmpfs and shares cached bases.
    driver = ET.SubElement(disk, "driver", name="qemu", type=file_format, cache="writeback")
    driver.set("discard", "unmap")
    ET.SubElement(disk, "source", file=_checked(path))
    ET.SubElement(disk, "target", dev=device, bus=bus)
    _text(disk, "serial", serial)
    ET.SubElement(disk, "alias", name=alias)
    return disk


def _add_nat_interface(devices: ET.Element, config: DomainConfig, network: NatNetwork) -> None:
    interface = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(interface, "mac", address=config.mac)
    ET.SubElement(interface, "source", network=network.name)
    ET.SubElement(interface, "model", type="virtio" if config.hardware.has_virtio else "e1000e")
    ET.SubElement(interface, "rom", enabled="no")  # no network boot, so no time spent on it
    ET.SubElement(interface, "alias", name="ua-net")


def _add_user_network(domain: ET.Element, config: DomainConfig, network: UserNetwork) -> None:
    # libvirt's own <interface type='user'> cannot forward ports (without passt).
    forwards = "".join(
        f",hostfwd=tcp:127.0.0.1:{forward.host_port}-:{forward.guest_port}"
        for forward in network.forwards
    )
    model = "virtio-net-pci" if config.hardware.has_virtio else "e1000e"
    device = f"{model},netdev=ua-net,id=ua-net-nic,mac={_escape(config.mac)},romfile="
    command_line = ET.SubElement(domain, f"{{{_QEMU_NAMESPACE}}}commandline")
    for argument in (
        "-netdev",
        f"user,id=ua-net{forwards}",
        "-device",
        f"{device},bus=pcie.0,addr={_USER_NIC_SLOT}",
    ):
        ET.SubElement(command_line, f"{{{_QEMU_NAMESPACE}}}arg", value=argument)


def _add_console(devices: ET.Element, log: Path) -> None:
    # One pty: logged from the first byte by virtlogd, and open for `virsh console` beside that.
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=_checked(log), append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")
    ET.SubElement(serial, "alias", name="ua-serial")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "log", file=_checked(log), append="on")
    ET.SubElement(console, "target", type="serial", port="0")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _escape(value: str) -> str:
    return value.replace(",", ",,")


def _drive_letters(index: int) -> str:
    # 0 is a, 25 is z, 26 is aa: as Linux names its disks.
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def _checked(path: Path) -> str:
    text = str(path)
    if not path.is_absolute():
        raise InvalidError(f"path {text!r} is not absolute", hint="give the whole path")
    if not text.isprintable():
        raise InvalidError(
            f"path {text!r} holds characters that libvirt's XML cannot",
            hint="choose a state directory without control characters, with --state-dir",
        )
    return text


def _checked_for_firmware(path: Path) -> str:
    # libvirt 9.0 puts this one path on QEMU's command line escaped as XML, and commas as they are.
    # On a command line of our own it would not let QEMU's user read the file.
    found = sorted(set(str(path)) & set("&<>'\","))
    if found:
        raise InvalidError(
            f"path {str(path)!r} holds {' '.join(found)}, which libvirt cannot pass to firmware",
            hint="images with Ignition need a state directory without it; choose with --state-dir",
        )
    return _checked(path)
