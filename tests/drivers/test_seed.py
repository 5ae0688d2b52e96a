"""The seed that an instance reads."""

import io
import json
import shutil
import stat
import subprocess
from dataclasses import replace

import pytest
from pycdlib import PyCdlib

from labctl.drivers.seed import SeedContent, ensure_seed

CONTENT = SeedContent(
    instance_id="web_3-g2-0a1b2c3d",
    hostname="web-3",
    public_keys=("ssh-ed25519 AAAA labctl", "ssh-ed25519 BBBB ü"),
    user_data=b"#!/bin/sh\necho \xff 'quoted'\n",
    vendor_data=b"MIME-Version: 1.0\n",
    network_config="version: 2\n",
    boot_script="#!/bin/sh\n",
)


def read_file(path, name, kind="rr_path"):
    image, data = PyCdlib(), io.BytesIO()
    image.open(str(path))
    image.get_file_from_iso_fp(data, **{kind: f"/{name}"})
    image.close()
    return data.getvalue()


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_the_files_come_back_byte_for_byte(tmp_path, kind):
    path = tmp_path / 'a b\'s, "seed".iso'
    ensure_seed(path, CONTENT)
    for name, data in CONTENT.files.items():
        assert read_file(path, name, kind) == data
    assert read_file(path, "user-data", kind) == CONTENT.user_data


def test_meta_data_is_json_with_one_key_a_line(tmp_path):
    ensure_seed(tmp_path / "seed.iso", CONTENT)
    text = read_file(tmp_path / "seed.iso", "meta-data").decode()
    assert '\n  "instance-id": "web_3-g2-0a1b2c3d",\n  "local-hostname": "web-3",\n' in text
    assert json.loads(text)["public-keys"] == list(CONTENT.public_keys)


def test_no_custom_data_is_an_empty_cloud_config(tmp_path):
    ensure_seed(tmp_path / "seed.iso", replace(CONTENT, user_data=b""))
    assert read_file(tmp_path / "seed.iso", "user-data") == b"#cloud-config\n"


def test_a_seed_is_written_once_and_again_only_for_other_content(tmp_path):
    path = tmp_path / "web" / "seed.iso"
    assert ensure_seed(path, CONTENT)
    before = path.stat()
    assert not ensure_seed(path, CONTENT)
    assert path.stat().st_ino == before.st_ino
    assert stat.S_IMODE(before.st_mode) == 0o600
    assert ensure_seed(path, replace(CONTENT, hostname="web-4"))
    assert b"web-4" in read_file(path, "meta-data")
    assert [entry.name for entry in path.parent.iterdir()] == ["seed.iso"]


@pytest.mark.parametrize("rest", [b"", b"no image at all", None], ids=["empty", "other", "cut"])
def test_a_broken_seed_is_written_anew(tmp_path, rest):
    path = tmp_path / "seed.iso"
    ensure_seed(path, CONTENT)
    path.write_bytes(path.read_bytes()[:40000] if rest is None else rest)
    assert ensure_seed(path, CONTENT)
    assert read_file(path, "labctl-boot.sh") == b"#!/bin/sh\n"


@pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")
def test_the_label_is_the_one_that_cloud_init_looks_for(tmp_path):
    path = tmp_path / "seed.iso"
    ensure_seed(path, CONTENT)
    command = ["blkid", "-p", "-s", "LABEL", "-o", "value", path]
    assert subprocess.check_output(command, text=True).strip() == "cidata"
