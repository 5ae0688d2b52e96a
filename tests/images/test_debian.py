import hashlib
import json
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.drivers.keys import make_key_pair
from labctl.drivers.recipe import build_image
from labctl.guest.boot_script import AgentConfig, BootConfig, build_boot_script, build_vendor_data
from labctl.model.image import VersionNumber
from labctl.settings import Settings

pytestmark = pytest.mark.e2e

IMAGES = Path(__file__).parents[2] / "images"
BOOT_DEADLINE = 300  # seconds; 45 on an idle emulated core, and other guests may share it
ROOT_PARTITION = "?offset=1048576"

# A user's own runcmd and write_files replace those of vendor-data, so labctl must not rely on them.
USER_DATA = b"""#cloud-config
write_files:
  - path: /etc/from-user
    content: written by the user
runcmd:
  - [sh, -c, "echo ran >> /var/lib/user-runs"]
  - [sh, -c, "id -un labctl > /var/lib/account-at-user-run"]
"""

NETWORK = json.dumps(
    {
        "version": 2,
        "ethernets": {"lab": {"match": {"macaddress": "52:54:00:12:34:56"}, "dhcp4": True}},
    }
)


@pytest.fixture(scope="session")
def debian_lab(pytestconfig):
    """Keeps the unpacked packages from one run of the tests to the next."""
    return Settings(state_dir=pytestconfig.cache.mkdir("debian-images"), uri="test:///default")


def build_debian(lab, recipe, **parameters):
    return build_image(
        IMAGES / recipe,
        version=VersionNumber.parse("1.2.3"),
        parameters=parameters,
        greeting="hello, lab",
        settings=lab,
    )


def make_vendor_data(instance_id, key, host):
    script = build_boot_script(
        BootConfig(
            instance_id=instance_id,
            host_key=host.private,
            host_key_public=host.public,
            controller_public_key=key.public,
            health=AgentConfig(
                token="secret",
                protocol="http",
                app_port=8080,
                request_path="/health",
                interval=timedelta(seconds=5),
                number_of_probes=1,
            ),
        )
    )
    return script, build_vendor_data(script, host.private, host.public)


@pytest.mark.timeout(900)
def test_debian_12_runs_real_cloud_init_beside_the_data_of_labctl(debian_lab, new_guest, key):
    image = build_debian(debian_lab, "debian-12")
    guest = new_guest(image.path, memory=512, disk_size="4G", deadline=BOOT_DEADLINE)
    host = make_key_pair("host")
    script, vendor_data = make_vendor_data("web_3-g1-00000001", key, host)
    guest.write_seed(
        "web_3-g1-00000001",
        user_data=USER_DATA,
        boot_script=script,
        vendor_data=vendor_data,
        network_config=NETWORK,
    )
    guest.start()

    verdict = json.loads(
        guest.run("cloud-init status --wait --format json | tr -d .", host_key=host.public)
    )
    seconds = time.monotonic() - guest.started_at
    assert (verdict["status"], verdict["errors"]) == ("done", [])
    facts = guest.run(
        "hostname; id -un; sudo -n id -un; . /etc/os-release; echo $VERSION_ID;"
        " cat /var/lib/user-runs /var/lib/account-at-user-run; tr '\\n' ' ' </etc/from-user;"
        " echo; ls /etc/ssh/ssh_host_*_key; cat /etc/machine-id | wc -c;"
        " systemctl --failed --plain --no-legend; cat /etc/labctl-image",
        host_key=host.public,
    )
    assert facts.splitlines() == [
        "web-3",
        "labctl",
        "root",
        "12",
        "ran",
        "labctl",
        "written by the user",
        "/etc/ssh/ssh_host_ed25519_key",
        "33",
        "IMAGE_NAME=debian-12",
        "IMAGE_VERSION=1.2.3",
        f"IMAGE_BUILD_ID={image.build_id}",
        "IMAGE_GREETING=hello, lab",
        "IMAGE_FAULT=none",
    ]
    assert guest.run("whoami", user="debian", host_key=host.public) == "debian\n"
    megabytes = int(guest.run("df -m --output=size / | tail -n 1", host_key=host.public))
    assert megabytes > 3500, "the root grows with the disk"
    assert guest.get("/health") == (200, "ok\n")
    assert guest.get("/version") == (200, "1.2.3\n")
    assert guest.get("/greeting") == (200, "hello, lab\n")
    stopped_in = guest.press_power_button()

    guest.start()  # the same disk and seed
    assert guest.get("/health") == (200, "ok\n")
    again = guest.run("cloud-init status --wait >/dev/null; cat /var/lib/user-runs")
    assert again == "ran\n"
    print(f"debian-12: cloud-init done after {seconds:.1f} s, power-off {stopped_in:.1f} s")


@pytest.mark.timeout(900)
def test_debian_13_is_built_from_the_same_parts(debian_lab, tmp_path):
    image = build_debian(debian_lab, "debian-13", fault="unhealthy", demoApp="no")
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.path, raw], check=True)

    def read(path):
        command = ["debugfs", "-R", f"cat {path}", f"{raw}{ROOT_PARTITION}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert read("/etc/labctl-image").splitlines() == [
        "IMAGE_NAME=debian-13",
        "IMAGE_VERSION=1.2.3",
        f"IMAGE_BUILD_ID={image.build_id}",
        "IMAGE_GREETING=hello, lab",
        "IMAGE_FAULT=unhealthy",
    ]
    assert read("/etc/labctl-demo-app") == "", "left out"
    assert "VERSION_CODENAME=trixie" in read("/usr/lib/os-release")
    with raw.open("rb") as disk:
        assert disk.read(512)[510:] == b"\x55\xaa"


def test_a_second_version_costs_no_packages(debian_lab, tmp_path, monkeypatch):
    build_debian(debian_lab, "debian-12")
    for record in (debian_lab.cache_dir / "builds").glob("debian-12-*.json"):
        if json.loads(record.read_text())["parameters"]["fault"] == "unhealthy":
            record.with_suffix(".qcow2").unlink(missing_ok=True)  # of an earlier run
    kept = debian_lab.cache_dir / "recipes" / "debian-12"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    for program in ("mmdebstrap", "mke2fs"):  # what takes long; a build that starts it fails
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    unhealthy = build_debian(debian_lab, "debian-12", fault="unhealthy")
    assert unhealthy.path.exists()
    assert not unhealthy.from_cache
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    digests = {
        hashlib.sha256(
            build_debian(debian_lab, "debian-12", fault=fault).path.read_bytes()
        ).digest()
        for fault in ("none", "unhealthy")
    }
    assert len(digests) == 2
