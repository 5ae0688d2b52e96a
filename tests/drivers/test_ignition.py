"""The Ignition config, by the shape that the published specification 3.3.0 gives it."""

import base64
import json
import stat
import subprocess
from dataclasses import replace

import pytest

from labctl.drivers.ignition import (
    IgnitionContent,
    ensure_ignition,
    find_custom_data_fault,
    find_entry_name,
)
from labctl.model.image import OsType

CONTENT = IgnitionContent(
    hostname="web-3",
    user="labctl",
    public_keys=("ssh-ed25519 AAAA labctl", "ssh-ed25519 BBBB ü"),
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n",
    host_key_public="ssh-ed25519 CCCC",
    custom_data=b'{"ignition": {"version": "3.2.0"}}',
)
# What the specification names at these places; other keys would be ignored, or refused.
KEYS = {
    "": {"ignition", "passwd", "storage", "systemd"},
    "ignition": {"version", "config"},
    "ignition.config": {"merge"},
    "ignition.config.merge[]": {"source"},
    "passwd": {"users"},
    "passwd.users[]": {"name", "homeDir", "shell", "system", "sshAuthorizedKeys"},
    "storage": {"files"},
    "storage.files[]": {"path", "mode", "overwrite", "contents"},
    "storage.files[].contents": {"source"},
    "systemd": {"units"},
    "systemd.units[]": {"name", "enabled", "contents"},
}


def shape(value, place=""):
    found = {}
    if isinstance(value, dict):
        found[place] = set(value)
        for key, inner in value.items():
            found |= shape(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            found |= shape(inner, f"{place}[]")
    return found


def decode(source):
    head, content = source.split(",", 1)
    assert head == "data:;base64"
    return base64.b64decode(content, validate=True)


def files(content):
    found = json.loads(content.text)["storage"]["files"]
    return {each["path"]: (each["mode"], decode(each["contents"]["source"])) for each in found}


def test_the_config_has_the_keys_of_the_specification_and_no_others():
    config = json.loads(CONTENT.text)
    assert shape(config) == KEYS
    assert config["ignition"]["version"] == "3.3.0"


def test_host_keys_and_name_are_files_of_their_own_mode():
    found = files(CONTENT)
    assert found["/etc/hostname"] == (0o644, b"web-3\n")
    assert found["/etc/ssh/ssh_host_ed25519_key"] == (0o600, CONTENT.host_key.encode())
    assert found["/etc/ssh/ssh_host_ed25519_key.pub"] == (0o644, b"ssh-ed25519 CCCC\n")


def test_the_account_has_every_key():
    (user,) = json.loads(CONTENT.text)["passwd"]["users"]
    assert (user["name"], user["sshAuthorizedKeys"]) == ("labctl", list(CONTENT.public_keys))


def test_the_users_config_is_merged_byte_for_byte():
    (merged,) = json.loads(CONTENT.text)["ignition"]["config"]["merge"]
    assert decode(merged["source"]) == CONTENT.custom_data
    without = json.loads(replace(CONTENT, custom_data=b"").text)
    assert without["ignition"] == {"version": "3.3.0"}


def test_the_unit_runs_the_script_that_is_there():
    (unit,) = json.loads(CONTENT.text)["systemd"]["units"]
    path = "/etc/labctl/boot-from-seed.sh"
    assert (unit["name"], unit["enabled"]) == ("labctl-boot.service", True)
    assert f"ExecStart=/bin/sh {path}\n" in unit["contents"]
    mode, script = files(CONTENT)[path]
    assert mode == 0o755
    subprocess.run(["sh", "-n"], input=script, check=True)
    assert b"/dev/disk/by-id/virtio-seed" in script
    # systemd's name of that very disk
    assert "dev-disk-by\\x2did-virtio\\x2dseed.device" in unit["contents"]


def test_the_file_is_written_once_and_for_nobody_else(tmp_path):
    path = tmp_path / "web" / "web_3.g1.ign"
    assert ensure_ignition(path, CONTENT)
    before = path.stat()
    assert not ensure_ignition(path, CONTENT)
    assert path.stat().st_ino == before.st_ino
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert ensure_ignition(path, replace(CONTENT, hostname="web-4"))
    assert path.read_text() == replace(CONTENT, hostname="web-4").text
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_each_system_is_asked_where_it_looks():
    assert {each: find_entry_name(each) for each in OsType} == {
        OsType.LINUX: None,
        OsType.FLATCAR: "opt/org.flatcar-linux/config",
        OsType.FEDORA_COREOS: "opt/com.coreos/config",
        OsType.WINDOWS: None,
    }


@pytest.mark.parametrize(
    ("custom_data", "fault"),
    [
        (b'{"ignition": {"version": "3.4.0"}}', None),
        (b"#!/bin/sh\n", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it has no ignition.version"),
        (b'{"ignition": []}', "it has no ignition.version"),
        (b'{"ignition": {"version": 3}}', "it has no ignition.version"),
        (b'{"ignition": {"version": "2.3.0"}}', "ignition.version is '2.3.0', not 3.x.y"),
    ],
    ids=["good", "script", "bytes", "deep", "list", "no object", "number", "old"],
)
def test_what_cannot_be_merged_is_told(custom_data, fault):
    found = find_custom_data_fault(custom_data)
    assert (found is None) if fault is None else (found or "").startswith(fault)
