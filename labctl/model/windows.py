"""What the spec says of Windows instances, and what cannot be had there."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from labctl.model.extension_rules import FETCH_SETTINGS
from labctl.model.machine import DataDisk
from labctl.model.setup import Extension
from labctl.model.spec_rules import Faults
from labctl.model.strict import Strict

AUTOMATIC_UPDATES = (
    "must be false with enableAutomaticOSUpgrade: Windows Update would restart instances by itself"
)


class DriverKind(StrEnum):
    """For which devices the image has drivers."""

    STANDARD = "standard"  # SATA and an Intel network card: every Windows has them
    VIRTIO = "virtio"  # faster, where the image has the virtio drivers


class WindowsConfiguration(Strict):
    """Makes a scale set one of Windows instances; its image must be one of Windows."""

    enable_automatic_updates: bool = Field(
        default=True,
        description="Whether Windows Update installs by itself; must be false for automatic OS "
        "upgrades",
    )
    drivers: Annotated[DriverKind, Field(strict=False)] = Field(
        default=DriverKind.STANDARD, description="virtio only where the image has the drivers"
    )


def find_windows_faults(
    configuration: WindowsConfiguration | None,
    *,
    data_disks: Sequence[DataDisk],
    extensions: Sequence[Extension],
    custom_data: str | None,
    is_upgraded_automatically: bool,
) -> Faults:
    """What Windows and Linux instances cannot have of one another, by its place in the spec."""
    if configuration is None:
        return _find_faults_of_linux(data_disks)
    faults = _find_disk_faults(data_disks) + _find_extension_faults(extensions)
    fault = find_custom_data_fault(custom_data)
    if fault is not None:
        faults.append((("customData", "inline"), fault))
    if is_upgraded_automatically and configuration.enable_automatic_updates:
        at = ("windowsConfiguration", "enableAutomaticUpdates")
        faults.append((at, AUTOMATIC_UPDATES))
    return faults


def find_custom_data_fault(text: str | None) -> str | None:
    """Why cloudbase-init would not run this, or not tell how it went; None: it can be run."""
    if not text or not text.strip() or is_cloud_config(text) or is_multipart(text):
        return None
    if find_script_kind(text) is not None:
        return None
    return (
        "must begin with #ps1_sysnative, #ps1_x86, 'rem cmd', #cloud-config or "
        "'Content-Type: multipart' for Windows"
    )


def is_cloud_config(text: str) -> bool:
    """Is it what cloudbase-init reads as cloud-config?"""
    return text.startswith("#cloud-config")


def is_multipart(text: str) -> bool:
    """Is it parts of several kinds? cloudbase-init looks at these very first bytes."""
    return text.startswith("Content-Type: multipart")


def find_script_kind(text: str) -> str | None:
    """By its first line: "ps1", "ps1_x86", "cmd"; None: no script that Windows runs."""
    first = text.split("\n", 1)[0].strip()
    if first in {"#ps1", "#ps1_sysnative"}:
        return "ps1"
    if first == "#ps1_x86":
        return "ps1_x86"
    return "cmd" if first.lower().split()[:2] == ["rem", "cmd"] else None


def _find_faults_of_linux(data_disks: Sequence[DataDisk]) -> Faults:
    faults: Faults = []
    for place, disk in enumerate(data_disks):
        at = ("dataDisks", place)
        if disk.file_system == "ntfs":
            faults.append(((*at, "fileSystem"), "'ntfs' is only for windowsConfiguration"))
        if disk.mount_point is not None and not disk.mount_point.startswith("/"):
            faults.append(((*at, "mountPoint"), "a drive letter is only for windowsConfiguration"))
    return faults


def _find_disk_faults(data_disks: Sequence[DataDisk]) -> Faults:
    faults: Faults = []
    for place, disk in enumerate(data_disks):
        at = ("dataDisks", place)
        if disk.file_system == "ext4":
            faults.append(((*at, "fileSystem"), "'ext4' is only for Linux; Windows has 'ntfs'"))
        if disk.mount_point is not None and disk.mount_point.startswith("/"):
            faults.append(((*at, "mountPoint"), "must be a drive letter for Windows, such as E:"))
    return faults


def _find_extension_faults(extensions: Sequence[Extension]) -> Faults:
    faults: Faults = []
    for place, extension in enumerate(extensions):
        at = ("extensions", place)
        if extension.playbook is not None:
            reason = "playbooks need Python and sudo in the guest; Windows takes scripts only"
            faults.append(((*at, "playbook"), reason))
        if extension.script is not None and extension.script.startswith("#!"):
            reason = "begins with '#!'; Windows runs PowerShell, or cmd.exe after 'rem cmd'"
            faults.append(((*at, "script"), reason))
        handed_over = set(extension.protected_settings) - (
            set(FETCH_SETTINGS) if extension.url is not None else set()
        )
        if handed_over:
            reason = (
                "cannot be handed to Windows instances, where they would be written to the OS disk"
            )
            faults.append(((*at, "protectedSettings"), reason))
    return faults
