import email
import hashlib
import json
import os
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from labctl.drivers.keys import make_key_pair
from labctl.guest.boot_script import (
    AgentConfig,
    BootConfig,
    DataDiskMount,
    build_boot_script,
    build_vendor_data,
)

MIB = 2**20
HOST_KEY = make_key_pair("labctl")
CONTROLLER = make_key_pair("labctl").public
AGENT = AgentConfig(
    token="s3cret" * 8,
    protocol="http",
    app_port=8080,
    request_path="/health?'\"$(touch /tmp/owned)`id`",
    interval=timedelta(seconds=5),
    number_of_probes=2,
)
CONFIG = BootConfig(
    instance_id="web_3-g2-0a1b2c3d",
    host_key=HOST_KEY.private,
    host_key_public=HOST_KEY.public,
    controller_public_key=CONTROLLER,
)
FILES = Path(__file__).parents[2] / "labctl" / "guest"
SHELLS = [["dash"], ["busybox", "sh"]]


@pytest.fixture(params=SHELLS, ids=["dash", "busybox"])
def guest(request, tmp_path):
    return Guest(request.param, tmp_path)


class Guest:
    """A directory that stands for the guest's root; only mounting and accounts are stubs."""

    def __init__(self, shell, directory):
        self.shell = shell
        self.root = directory / "guest"
        self.stubs = {}
        for name in ("dev", "sys/block", "proc", "etc/sudoers.d", "run/systemd/system"):
            (self.root / name).mkdir(parents=True)
        (self.root / "proc/mounts").touch()
        (self.root / "etc/passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nlabctl:x:{os.getuid()}:{os.getgid()}::/home/labctl:/bin/sh\n"
        )
        self.stub("mount", f'echo "$1 ${{2#{self.root}}} ext4 rw 0 0" >>"{self.root}/proc/mounts"')

    def stub(self, name, body):
        self.stubs[name] = f"{name}() {{ {body}; }}\n"

    def add_disk(self, device, serial, size=16 * MIB):
        directory = self.root / "sys/block" / device
        directory.mkdir()
        (directory / "serial").write_text(serial)  # the kernel writes no newline
        (directory / "size").write_text(f"{size // 512}\n")
        path = self.root / "dev" / device
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def boot(self, config):
        stubs = "".join(self.stubs.values())  # functions: busybox prefers its own programs to files
        script = build_boot_script(config).replace("\nset -u\n", f"\nset -u\n{stubs}", 1)
        done = subprocess.run(
            [*self.shell, "-s"],
            input=script,
            env={"LABCTL_ROOT": str(self.root)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return json.loads((self.root / "run/labctl/boot.json").read_text())

    def read(self, path):
        return (self.root / path).read_text()


def type_of(path):
    return subprocess.run(
        ["blkid", "-p", "-s", "TYPE", "-o", "value", path], capture_output=True, text=True
    ).stdout.strip()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_disk(file_system="ext4", mount_point="/data/db"):
    disk = DataDiskMount(name="db", file_system=file_system, mount_point=mount_point)
    return replace(CONFIG, data_disks=(disk,))


def test_the_way_in_is_installed_and_a_second_boot_changes_nothing(guest):
    config = replace(CONFIG, authorized_keys=("ssh-ed25519 AAAAC3 ann's $(key)", "  "))
    for _ in range(2):
        assert guest.boot(config) == {
            "instanceId": "web_3-g2-0a1b2c3d",
            "status": "ok",
            "dataDisks": [],
        }
        keys = guest.root / "home/labctl/.ssh/authorized_keys"
        assert keys.read_text() == f"{CONTROLLER}\nssh-ed25519 AAAAC3 ann's $(key)\n"
        assert keys.stat().st_mode & 0o777 == 0o600
        private = guest.root / "etc/ssh/ssh_host_ed25519_key"
        assert private.read_text() == HOST_KEY.private
        assert private.stat().st_mode & 0o777 == 0o600
        assert guest.read("etc/ssh/ssh_host_ed25519_key.pub") == HOST_KEY.public + "\n"


def test_an_account_with_rights_is_made_where_there_is_none(guest):
    guest.stub(
        "useradd", f'echo "labctl:x:998:998::/home/labctl:/bin/sh" >>"{guest.root}/etc/passwd"'
    )
    guest.stub("chown", ":")
    (guest.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert guest.boot(CONFIG)["status"] == "ok"
    sudoers = guest.root / "etc/sudoers.d/90-labctl"
    assert sudoers.read_text() == "labctl ALL=(ALL:ALL) NOPASSWD:ALL\n"
    assert sudoers.stat().st_mode & 0o777 == 0o440
    mask = guest.root / "run/systemd/system/user@998.service"
    assert mask.readlink().as_posix() == "/dev/null"


def test_a_blank_disk_is_formatted_once_found_by_serial_and_mounted(guest):
    guest.add_disk("vda", "os")
    other = guest.add_disk("vdb", "data-other")
    disk = guest.add_disk("vdc", "data-db")
    untouched = digest(other)
    report = guest.boot(with_disk())
    assert report["dataDisks"] == [{"name": "db", "state": "formatted", "detail": "/data/db"}]
    assert type_of(disk) == "ext4"
    assert digest(other) == untouched
    assert guest.read("proc/mounts") == f"{disk} /data/db ext4 rw 0 0\n"
    content = digest(disk)
    assert guest.boot(with_disk())["dataDisks"][0]["state"] == "mounted"
    (guest.root / "proc/mounts").write_text("")  # the next OS disk boots
    assert guest.boot(with_disk())["dataDisks"][0]["state"] == "mounted"
    assert digest(disk) == content


@pytest.mark.parametrize(
    "offset", [0, 510, 4096, 700_000, 16 * MIB - 400_000, 16 * MIB - 1], ids=str
)
def test_a_disk_that_holds_anything_is_never_formatted(guest, offset):
    disk = guest.add_disk("vdb", "data-db")
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(b"x")
    content = digest(disk)
    guest.stub("mount", 'echo "mount: wrong \\"fs\\" type" >&2; return 32')
    report = guest.boot(with_disk())
    assert report["status"] == "failed"
    assert report["dataDisks"][0]["state"] == "failed"
    assert "mount: wrong fs type" in report["dataDisks"][0]["detail"]
    assert digest(disk) == content


def test_another_file_system_is_left_as_it_is(guest):
    disk = guest.add_disk("vdb", "data-db")
    subprocess.run(["mkswap", disk], check=True, capture_output=True)
    content = digest(disk)
    assert guest.boot(with_disk())["dataDisks"][0]["state"] == "mounted"
    assert digest(disk) == content


def test_a_file_system_that_was_cut_off_while_being_made_is_made_again(guest):
    disk = guest.add_disk("vdb", "data-db")
    with disk.open("r+b") as file:
        file.write(os.urandom(4096))  # half of mke2fs's work
        file.seek(16 * MIB - 512 * 1024)
        file.write(b"labctl is making a file system here".ljust(512))
    assert guest.boot(with_disk())["dataDisks"][0]["state"] == "formatted"
    assert type_of(disk) == "ext4"
    assert b"labctl is making" not in disk.read_bytes()


def test_a_disk_that_cannot_be_read_is_not_taken_for_blank(guest):
    disk = guest.add_disk("vdb", "data-db")
    with disk.open("r+b") as file:
        file.truncate(64 * 1024)  # shorter than the kernel said
    content = digest(disk)
    guest.boot(with_disk())
    assert digest(disk) == content


def test_a_missing_disk_is_reported_and_the_way_in_still_opens(guest):
    report = guest.boot(with_disk())
    assert report["status"] == "failed"
    assert report["dataDisks"] == [
        {"name": "db", "state": "failed", "detail": "no disk with the serial data-db"}
    ]
    assert (guest.root / "etc/ssh/ssh_host_ed25519_key").exists()


def test_a_disk_without_file_system_and_mount_point_is_only_looked_for(guest):
    disk = guest.add_disk("vdb", "data-db")
    content = digest(disk)
    report = guest.boot(with_disk(file_system=None, mount_point=None))
    assert report["dataDisks"] == [{"name": "db", "state": "attached", "detail": ""}]
    assert digest(disk) == content


def test_the_agent_gets_its_files_and_the_guest_never_sees_the_token(guest):
    guest.boot(replace(CONFIG, health=AGENT))
    agent = guest.root / "run/labctl/health"
    assert json.loads((agent / "config.json").read_text()) == {
        "tokenSha256": hashlib.sha256(AGENT.token.encode()).hexdigest(),
        "tokenLineSha256": hashlib.sha256(f"{AGENT.token}\n".encode()).hexdigest(),
        "port": 17800,
        "protocol": "http",
        "appPort": 8080,
        "requestPath": AGENT.request_path,
        "intervalSeconds": 5,
        "numberOfProbes": 2,
        "typeHandlerVersion": "1.0",
        "gracePeriodSeconds": 10,
        "uid": 61178,
    }
    assert f"requestPath={AGENT.request_path}\n" in (agent / "config").read_text()
    for name in ("agent.py", "agent.sh"):
        assert (agent / name).read_bytes() == (FILES / name).read_bytes()
    assert AGENT.token not in build_boot_script(replace(CONFIG, health=AGENT))


def test_the_agent_is_told_about_rich_states_and_the_grace_period(guest):
    rich = replace(AGENT, type_handler_version="2.0", grace_period=timedelta(seconds=89.5))
    guest.boot(replace(CONFIG, health=rich))
    told = json.loads((guest.root / "run/labctl/health/config.json").read_text())
    assert (told["typeHandlerVersion"], told["gracePeriodSeconds"]) == ("2.0", 90)
    lines = (guest.root / "run/labctl/health/config").read_text().splitlines()
    assert {"typeHandlerVersion=2.0", "gracePeriodSeconds=90"} <= set(lines)


@pytest.mark.parametrize("shell", SHELLS, ids=["dash", "busybox"])
def test_the_script_parses_in_both_shells(shell):
    script = build_boot_script(replace(with_disk(), health=AGENT))
    done = subprocess.run([*shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.startswith("#!/bin/sh\n")
    assert script.isascii()


def test_vendor_data_carries_the_host_key_and_the_script_as_a_boothook():
    script = build_boot_script(replace(with_disk(), health=AGENT))
    data = build_vendor_data(script, HOST_KEY.private, HOST_KEY.public)
    assert data == build_vendor_data(script, HOST_KEY.private, HOST_KEY.public)
    config, hook = email.message_from_bytes(data).get_payload()
    assert config.get_content_type() == "text/cloud-config"
    assert yaml.safe_load(config.get_payload())["ssh_keys"] == {
        "ed25519_private": HOST_KEY.private,
        "ed25519_public": HOST_KEY.public,
    }
    assert hook.get_content_type() == "text/cloud-boothook"
    assert hook.get_filename() == "labctl-boot.sh"
    assert hook.get_payload() == script
