#!/usr/bin/env python3
"""Build a bootable Debian disk from packages: what debian-12 and debian-13 share."""

# Two caches make a second version cheap: packages-<key>.tar (the unpacked packages; minutes) and
# disk-<key>.raw (bootable, nothing version-specific inside; seconds). A version then only adds
# three small files to a copy of the disk.

# ruff: noqa: TID251, T201 - it runs alone, on hosts without labctl

import argparse
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SECTOR_BYTES = 512
PARTITION_START_SECTOR = 2048  # 1 MiB: the usual place; the boot loader lives before it
DISK_BYTES = 2 * 1024**3

PACKAGES = (
    "systemd-sysv", "udev", "dbus", "systemd-resolved", "systemd-timesyncd",
    "cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "openssh-server", "sudo", "python3",
    "iproute2", "iputils-ping", "netbase", "ca-certificates", "curl", "procps", "kmod", "less",
    "linux-image-cloud-amd64", "tiny-initramfs", "grub-pc-bin", "grub-common",
)  # fmt: skip

# Documents and translations are a third of the files and nobody reads them in a test machine.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
)

ENABLED_UNITS = (
    "labctl-demo-app.service", "labctl-emulation.service", "systemd-networkd.service",
)  # fmt: skip

# Each would run during or soon after boot, for the sake of machines that live for years.
DISABLED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "systemd-pstore.service", "getty@tty1.service", "grub-common.service",
)  # fmt: skip

# Started by other units, so only a mask keeps them from running: file systems and modules that
# nothing here uses, records of logins, the flush of a journal that stays in memory.
MASKED_UNITS = (
    "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
    "modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service",
    "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service",
    "systemd-journal-flush.service", "systemd-network-generator.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
)  # fmt: skip

# Each is a program that systemd runs and waits for at every boot and at every reload.
MASKED_GENERATORS = (
    "systemd-bless-boot-generator", "systemd-cryptsetup-generator", "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator", "systemd-integritysetup-generator",
    "systemd-rc-local-generator", "systemd-system-update-generator", "systemd-sysv-generator",
    "systemd-veritysetup-generator",
)  # fmt: skip

GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What makes one version of the image different from the next."""

    name: str
    number: str
    build_id: str
    greeting: str
    fault: str
    demo_app: bool


def run(arguments: Sequence[str | Path], **options: object) -> None:
    """Run a program to its end and show its output; raise when it fails."""
    subprocess.run([str(word) for word in arguments], check=True, **options)  # type: ignore[call-overload]


def output_of(arguments: Sequence[str]) -> str:
    """Return what a program printed, or nothing when this machine lacks it or it fails."""
    if shutil.which(arguments[0]) is None:
        return ""
    return subprocess.run(arguments, check=False, capture_output=True, text=True).stdout


def key_of(*parts: str | bytes) -> str:
    """Name a cached file after everything that decides its content."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]


def library_content() -> bytes:
    """Return all files of this folder as one string, for a cache key."""
    files = sorted(path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return b"".join(str(path.relative_to(HERE)).encode() + path.read_bytes() for path in files)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a scratch name beside `path`; the finished file takes its place in one step."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def ensure_only(path: Path, pattern: str) -> None:
    """Delete older cached files of the same kind."""
    for other in path.parent.glob(pattern):
        if other != path:
            other.unlink(missing_ok=True)


# --- packages ------------------------------------------------------------------------------------


def package_sources(suite: str) -> list[str]:
    """Return apt lines for `suite` from the mirrors this machine uses itself.

    Empty when the machine is no Debian: mmdebstrap then takes its own default.
    """
    wanted = os.environ.get("LABCTL_DEBIAN_MIRROR", "")
    if wanted:
        return [f"deb {wanted} {suite} main", f"deb {wanted} {suite}-updates main"]
    listing = output_of(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"]
    )
    rows = {tuple(line.split("|")) for line in listing.splitlines()}
    main = sorted(row[3] for row in rows if row[:3] == ("Debian", "Debian", "main"))
    security = sorted(row[3] for row in rows if row[:3] == ("Debian", "Debian-Security", "main"))
    lines = [f"deb {main[0]} {suite}{part} main" for part in ("", "-updates") if main]
    return lines + [f"deb {security[0]} {suite}-security main" for _ in lines[:1] if security]


def apt_options() -> list[str]:
    """Return this machine's own settings for reaching its mirror (proxy, checks of dates)."""
    dump = output_of(["apt-config", "dump"])
    wanted = (
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
        "Acquire::http",
        "Acquire::Retries",
    )
    return [line for line in dump.splitlines() if line.startswith(wanted) and '""' not in line]


def ensure_packages(suite: str, cache: Path) -> Path:
    """Return the archive of the unpacked packages, made by mmdebstrap unless cached."""
    sources = package_sources(suite)
    packages = cache / f"packages-{key_of(suite, *sources, *PACKAGES, *DPKG_OPTIONS)}.tar"
    if packages.exists():
        return packages
    print(f"unpacking Debian packages of {suite}", flush=True)
    with appearing(packages) as part:
        run(
            [
                "mmdebstrap",
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                "--variant=minbase",
                "--format=tar",
                "--architectures=amd64",
                f"--keyring={KEYRING}",
                f"--include={','.join(PACKAGES)}",
                '--aptopt=APT::Install-Recommends "false"',
                *(f"--aptopt={option}" for option in apt_options()),
                *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
                # These settings are about the building machine, not about the image.
                '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
                suite,
                part,
                *sources,
            ]
        )
    ensure_only(packages, "packages-*.tar")
    return packages


# --- disk ----------------------------------------------------------------------------------------


def ensure_disk(suite: str, packages: Path, cache: Path, work: Path) -> Path:
    """Return the bootable disk without anything version-specific, made unless cached."""
    disk = cache / f"disk-{key_of(suite, packages.name, library_content())}.raw"
    if disk.exists():
        return disk
    print("making a bootable disk", flush=True)
    with appearing(disk) as part:
        # Files of other users than root need a user namespace, unless root makes them.
        namespace = [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto", "--"]
        run([*namespace, sys.executable, __file__, "assemble", packages, part, work])
    ensure_only(disk, "disk-*.raw")
    return disk


def assemble(packages: Path, disk: Path, work: Path) -> None:
    """Fill `disk` from the packages; runs as root or as root of a user namespace."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        # Device nodes need real root, and the kernel fills /dev anyway.
        run(["tar", "-C", root, "--exclude=./dev/*", "--numeric-owner", "-xpf", packages])
        root_id = str(uuid.uuid5(uuid.NAMESPACE_URL, disk.name.split(".", 1)[0]))
        settle(root, root_id)
        write_root_file_system(root, disk, root_id)
        write_boot_loader(root, disk)


def settle(root: Path, root_id: str) -> None:
    """Turn unpacked packages into a machine that boots fast."""
    for source in sorted(path for path in (HERE / "root").rglob("*") if path.is_file()):
        target = root / source.relative_to(HERE / "root")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8").replace("@ROOT_UUID@", root_id))
        target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    in_root(root, "systemctl", "disable", *DISABLED_UNITS)
    in_root(root, "systemctl", "mask", *MASKED_UNITS)
    for generator in MASKED_GENERATORS:
        mask = root / "etc/systemd/system-generators" / generator
        mask.parent.mkdir(exist_ok=True)
        mask.symlink_to("/dev/null")
    in_root(root, "systemctl", "enable", *ENABLED_UNITS)
    for kernel in sorted((root / "usr/lib/modules").iterdir()):
        in_root(root, "mktirfs", "-o", f"/boot/initrd.img-{kernel.name}", kernel.name)
    in_root(
        root, "grub-mkimage", "-O", "i386-pc", "-o", "/boot/grub/core.img",
        "-p", "(hd0,msdos1)/boot/grub", *GRUB_MODULES,
    )  # fmt: skip
    for leftover in (*(root / "etc/ssh").glob("ssh_host_*"), *(root / "dev").iterdir()):
        leftover.unlink()
    (root / "etc/hostname").unlink(missing_ok=True)
    for old in ("vmlinuz.old", "initrd.img.old"):
        (root / old).unlink(missing_ok=True)
    # Newer than /usr: tells systemd that its yearly round (users, hardware database) was done.
    for place in ("etc", "var"):
        (root / place / ".updated").touch()
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def in_root(root: Path, *words: str) -> None:
    """Run a program of the image inside it."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    run(["chroot", root, *words], env={"PATH": path, "LC_ALL": "C.UTF-8"})


def write_root_file_system(root: Path, disk: Path, root_id: str) -> None:
    """Make the ext4 file system from the folder; nothing is mounted."""
    offset = PARTITION_START_SECTOR * SECTOR_BYTES
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    run(
        [
            "mke2fs", "-q", "-t", "ext4", "-U", root_id, "-L", "root", "-d", root,
            # Room for the file system to grow with the disk; no lazy work left for the first boot.
            "-E", f"offset={offset},resize=67108864,lazy_itable_init=0,nodiscard",
            disk, f"{(DISK_BYTES - offset) // 1024}k",
        ]
    )  # fmt: skip


def write_boot_loader(root: Path, disk: Path) -> None:
    """Write partition table and GRUB into the sectors before the file system."""
    first = bytearray((root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:SECTOR_BYTES])
    core = (root / "boot/grub/core.img").read_bytes()
    if len(core) > (PARTITION_START_SECTOR - 1) * SECTOR_BYTES:
        raise SystemExit(f"boot loader of {len(core)} bytes does not fit before the partition")
    # boot.img looks for the core image at sector 1 and the core image for its rest at sector 2:
    # contiguous, as both are built to expect, so nothing has to be patched.
    sectors = DISK_BYTES // SECTOR_BYTES - PARTITION_START_SECTOR
    active, linux, no_cylinders = 0x80, 0x83, b"\xfe\xff\xff"
    first[440:446] = os.urandom(4) + bytes(2)  # disk signature
    first[446:462] = (
        bytes([active]) + no_cylinders + bytes([linux]) + no_cylinders
        + struct.pack("<II", PARTITION_START_SECTOR, sectors)
    )  # fmt: skip
    first[462:510] = bytes(48)
    first[510:512] = b"\x55\xaa"
    with disk.open("r+b") as file:
        file.write(first + core)


# --- version -------------------------------------------------------------------------------------


def read_version(name: str, environment: Mapping[str, str]) -> Version:
    """Read what the image builder asks for."""
    return Version(
        name=name,
        number=environment["LABCTL_IMAGE_VERSION"],
        build_id=environment["LABCTL_BUILD_ID"],
        greeting=environment["LABCTL_GREETING"],
        fault=environment.get("LABCTL_PARAM_FAULT", "none"),
        demo_app=environment.get("LABCTL_PARAM_DEMOAPP", "yes") == "yes",
    )


def write_version(disk: Path, version: Version, work: Path) -> None:
    """Put the version's small files into the file system; nothing is mounted."""
    files = {
        "/etc/labctl-image": (
            f"IMAGE_NAME={version.name}\n"
            f"IMAGE_VERSION={version.number}\n"
            f"IMAGE_BUILD_ID={version.build_id}\n"
            f"IMAGE_GREETING={' '.join(version.greeting.splitlines())}\n"
            f"IMAGE_FAULT={version.fault}\n"
        )
    }
    if version.demo_app:
        files["/etc/labctl-demo-app"] = "The service starts where this file is.\n"
    commands = []
    for number, (path, content) in enumerate(files.items()):
        (work / f"file-{number}").write_text(content, encoding="utf-8")
        commands += [f"write file-{number} {path}", f"sif {path} mode 0100644"]
        commands += [f"sif {path} uid 0", f"sif {path} gid 0"]
    (work / "commands").write_text("\n".join(commands) + "\n", encoding="utf-8")
    # debugfs splits words at blanks, so it is given names inside the work folder only.
    inner = f"{disk.name}?offset={PARTITION_START_SECTOR * SECTOR_BYTES}"
    run(["debugfs", "-w", "-f", "commands", inner], cwd=work, stdout=subprocess.DEVNULL)


def build(name: str, suite: str) -> None:
    """Build the version that the environment asks for."""
    version = read_version(name, os.environ)
    cache, work = Path(os.environ["LABCTL_CACHE"]), Path(os.environ["LABCTL_WORK"])
    cache.mkdir(parents=True, exist_ok=True)
    base = ensure_disk(suite, ensure_packages(suite, cache), cache, work)
    disk = work / "disk.raw"
    run(["cp", "--sparse=always", "--reflink=auto", base, disk])
    write_version(disk, version, work)
    run(["qemu-img", "convert", "-q", "-O", "qcow2", disk, os.environ["LABCTL_OUTPUT"]])


def main() -> None:
    """Choose between the builder and its part that needs a user namespace."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("build")
    for name in ("name", "suite"):
        whole.add_argument(name)
    step = commands.add_parser("assemble")
    for name in ("packages", "disk", "work"):
        step.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if arguments.command == "build":
        build(arguments.name, arguments.suite)
    else:
        assemble(arguments.packages, arguments.disk, arguments.work)


if __name__ == "__main__":
    main()
