"""A Windows scale set as far as it goes without Windows: an empty disk stands for the image.

Its machine is defined and started by the real libvirt and QEMU; nothing boots on it.
"""

import io
import subprocess
from xml.etree import ElementTree as ET

import pytest
from pycdlib import PyCdlib

from tests.e2e.harness import URI, Lab, state_directory

SPEC = {
    "image": {"definition": "windows", "version": "1.0.0"},
    "windowsConfiguration": {"enableAutomaticUpdates": False},
    "dataDisks": [
        {"name": f"d{n}", "size": "4MiB", "fileSystem": "ntfs", "mountPoint": f"{letter}:"}
        for n, letter in enumerate("EFGHI")
    ],
    "customData": {"inline": "#ps1_sysnative\nexit 0\n"},
    "timeouts": {"boot": "2s", "customData": "2s", "shutdown": "1s"},
}


@pytest.fixture
def lab():
    with state_directory() as path:
        made = Lab(path)
        disk = path / "empty.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
        words = ("--definition", "windows", "--version", "1.0.0", "--os-type", "Windows")
        made.run("image", "import", disk, *words)
        yield made
        made.run("delete", "winset", "--yes", expect=None)  # data disks go with the directory


def read(seed, name):
    image, content = PyCdlib(), io.BytesIO()
    image.open(str(seed))
    image.get_file_from_iso_fp(content, joliet_path=f"/{name}")
    image.close()
    return content.getvalue().decode()


def test_an_imported_windows_image_gets_its_machine_and_its_seed(lab):
    failed = lab.run("apply", lab.spec("winset", **SPEC), expect=None)
    assert failed.returncode != 0
    assert "no login by SSH within 2 s" in failed.stdout + failed.stderr
    command = ["virsh", "-c", URI, "dumpxml", "winset_0"]
    domain = ET.fromstring(subprocess.check_output(command, text=True))
    disks = [
        (disk.get("device"), disk.find("target").get("bus"), disk.findtext("serial"))
        for disk in domain.iter("disk")
    ]
    assert disks == [
        ("disk", "sata", "os"),
        ("cdrom", "sata", "seed"),
        *(("disk", "sata", f"data-d{n}") for n in range(5)),
    ]
    assert domain.find("clock").get("offset") == "localtime"
    seed = lab.state_dir / "scale-sets" / "winset" / "winset_0.g1.iso"
    assert seed.stat().st_mode & 0o077 == 0
    assert read(seed, "user-data").startswith("#ps1_sysnative\n")
    assert "labctl-custom-data.ps1" in read(seed, "user-data")
    assert "function Initialize-DataDisk" in read(seed, "labctl-boot.ps1")
