import pytest

from labctl.model.machine import DataDisk
from labctl.model.setup import Extension
from labctl.model.windows import (
    DriverKind,
    WindowsConfiguration,
    find_custom_data_fault,
    find_script_kind,
    find_windows_faults,
)

QUIET = WindowsConfiguration(enable_automatic_updates=False)


def faults_of(configuration, *, data_disks=(), extensions=(), custom_data=None, automatic=False):
    found = find_windows_faults(
        configuration,
        data_disks=data_disks,
        extensions=extensions,
        custom_data=custom_data,
        is_upgraded_automatically=automatic,
    )
    return [".".join(map(str, path)) for path, _ in found]


def test_the_defaults_are_those_of_azure_and_of_every_windows():
    made = WindowsConfiguration()
    assert (made.enable_automatic_updates, made.drivers) == (True, DriverKind.STANDARD)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#ps1_sysnative\nexit 0\n", "ps1"),
        ("#ps1\r\nexit 0\r\n", "ps1"),
        ("#ps1_x86\n", "ps1_x86"),
        ("rem cmd\ndir\n", "cmd"),
        ("REM  CMD\ndir\n", "cmd"),
        ("#ps1_sysnativ\n", None),
        ("#!/bin/sh\n", None),
        ("rem", None),
        ("", None),
    ],
)
def test_a_script_is_known_by_its_first_line(text, kind):
    assert find_script_kind(text) == kind


@pytest.mark.parametrize(
    "text", [None, "", " \n", "#cloud-config\n", "Content-Type: multipart/mixed; boundary=b\n"]
)
def test_other_custom_data_that_cloudbase_init_reads_is_taken(text):
    assert find_custom_data_fault(text) is None


@pytest.mark.parametrize("text", ["#ps1\n", "rem cmd\n"])
def test_scripts_that_windows_runs_are_taken(text):
    assert find_custom_data_fault(text) is None


@pytest.mark.parametrize("text", ["#!/bin/sh\n", "<powershell>x</powershell>", "dir", "\n#ps1\n"])
def test_custom_data_that_it_would_pass_over_is_refused(text):
    assert "#ps1_sysnative" in (find_custom_data_fault(text) or "")
    assert faults_of(QUIET, custom_data=text) == ["customData.inline"]
    assert faults_of(None, custom_data=text) == []


def test_automatic_upgrades_need_windows_update_to_be_off():
    at = "windowsConfiguration.enableAutomaticUpdates"
    assert faults_of(WindowsConfiguration(), automatic=True) == [at]
    assert faults_of(QUIET, automatic=True) == []
    assert faults_of(WindowsConfiguration()) == []
    assert faults_of(None, automatic=True) == []


def test_what_only_fetches_a_script_is_no_secret_of_the_guest():
    fetched = Extension.model_validate(
        {
            "name": "a",
            "url": "https://files.example/a.ps1",
            "sha256": "0" * 64,
            "protectedSettings": {"bearerToken": "x"},
        }
    )
    assert faults_of(QUIET, extensions=(fetched,)) == []
    handed = fetched.model_copy(update={"protected_settings": {"bearerToken": "x", "other": "y"}})
    assert faults_of(QUIET, extensions=(fetched, handed)) == ["extensions.1.protectedSettings"]


def test_ntfs_and_a_drive_letter_are_for_windows_and_ext4_and_a_path_are_not():
    ntfs = DataDisk(name="a", size="1GiB", file_system="ntfs", mount_point="E:")
    ext4 = DataDisk(name="b", size="1GiB", file_system="ext4", mount_point="/b")
    assert faults_of(QUIET, data_disks=(ntfs, DataDisk(name="c", size="1GiB"))) == []
    assert faults_of(QUIET, data_disks=(ntfs, ext4)) == [
        "dataDisks.1.fileSystem",
        "dataDisks.1.mountPoint",
    ]
    assert faults_of(None, data_disks=(ntfs, ext4)) == [
        "dataDisks.0.fileSystem",
        "dataDisks.0.mountPoint",
    ]
