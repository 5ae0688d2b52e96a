"""The seed for Windows, in the form in which cloudbase-init 1.1.9 was seen to read it."""

import email
import json
import shutil
import stat
import subprocess
from dataclasses import replace

import pytest

from labctl.drivers.cloudbase_seed import CloudbaseSeed, shorten_hostname
from labctl.drivers.seed import ensure_seed

SECRET = "the host key"
CONTENT = CloudbaseSeed(
    instance_id="web_3-g2-0a1b2c3d",
    hostname="web-3",
    public_keys=("ssh-ed25519 AAAA labctl", "ssh-ed25519 BBBB \u00fc"),
    custom_data="",
    boot_script=f"# {SECRET}\n",
)
MULTIPART = """\
Content-Type: multipart/mixed; boundary="=="
MIME-Version: 1.0

--==
Content-Type: text/x-shellscript
Content-Disposition: attachment; filename="mine.ps1"

#ps1_sysnative
exit 0
--==--
"""


def with_custom_data(text):
    return replace(CONTENT, custom_data=text).files


def parts_of(files):
    """As cloudbase-init takes them apart: the text, whole, by Python's own parser."""
    text = files["user-data"].decode()
    assert text.startswith("Content-Type: multipart")
    assert "Content-Type: multipart" in text.split("\n\n")[0]
    return [
        (part.get_content_type(), part.get_filename(), part.get_payload(decode=True))
        for part in email.message_from_string(text).walk()
        if not part.is_multipart()
    ]


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not installed")
def test_the_files_come_back_byte_for_byte_from_the_tool_that_cloudbase_init_has(tmp_path):
    content = replace(CONTENT, custom_data="#ps1_sysnative\nexit 0\n")
    seed = tmp_path / 'a b\'s, "seed".iso'
    assert ensure_seed(seed, content)
    assert not ensure_seed(seed, content)
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["bsdtar", "-xf", seed, "-C", out], check=True)
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    del found["labctl-hash"]
    assert found == content.files
    assert set(found) == {"meta-data", "user-data", "labctl-boot.ps1", "labctl-custom-data.ps1"}


@pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")
def test_the_label_is_the_one_that_cloudbase_init_looks_for(tmp_path):
    ensure_seed(tmp_path / "seed.iso", CONTENT)
    command = ["blkid", "-p", "-s", "LABEL", "-o", "value", tmp_path / "seed.iso"]
    assert subprocess.check_output(command, text=True).strip() == "cidata"


def test_the_metadata_has_the_keys_that_it_reads_and_no_network_of_its_own():
    assert json.loads(CONTENT.files["meta-data"]) == {
        "instance-id": "web_3-g2-0a1b2c3d",
        "local-hostname": "web-3",
        "public-keys": list(CONTENT.public_keys),
    }
    assert "network-config" not in CONTENT.files  # the card would be renamed; DHCP is the default


@pytest.mark.parametrize("text", ["", "#ps1_sysnative\nexit 0\n", "rem cmd\ndir\n"])
def test_without_other_kinds_the_user_data_is_one_powershell_script(text):
    files = with_custom_data(text)
    lines = files["user-data"].decode().splitlines()
    assert lines[0] == "#ps1_sysnative"
    assert ("labctl-custom-data.ps1" in files) is bool(text)
    assert (lines[-1] == "exit $LASTEXITCODE") is bool(text)


@pytest.mark.parametrize("text", ["", "#ps1_sysnative\nexit 0\n", "#cloud-config\n", MULTIPART])
def test_nothing_secret_is_in_what_cloudbase_init_writes_to_its_log(text):
    files = with_custom_data(text)
    assert SECRET.encode() not in files["user-data"]
    assert SECRET.encode() in files["labctl-boot.ps1"]


@pytest.mark.parametrize("text", ["#cloud-config\na: 1\n", "#cloud-config\na: gr\u00f6\u00dfe\n"])
def test_a_cloud_config_comes_behind_the_launcher_as_it_is(text):
    launcher, config = parts_of(with_custom_data(text))
    assert launcher[:2] == ("text/x-shellscript", "labctl.ps1")
    assert launcher[2].startswith(b"#ps1_sysnative\n")
    assert (config[0], config[2].decode().strip()) == ("text/cloud-config", text.strip())


def test_parts_of_the_user_come_behind_the_launcher_in_their_order():
    found = parts_of(with_custom_data(MULTIPART))
    assert [name for _, name, _ in found] == ["labctl.ps1", "mine.ps1"]
    assert found[1][2] == b"#ps1_sysnative\nexit 0"


@pytest.mark.parametrize("text", ["", "#cloud-config\n", MULTIPART])
def test_a_line_never_ends_as_cloudbase_init_would_not_see_it(text):
    assert b"\r" not in with_custom_data(text)["user-data"]


@pytest.mark.parametrize(
    ("instance", "hostname"),
    [("web_3", "web-3"), ("warehouse-front_12", "warehouse-fr-12"), ("a-b-c-d-e-f-g_999", None)],
)
def test_a_host_name_is_short_and_keeps_the_ordinal(instance, hostname):
    short = shorten_hostname(instance)
    assert len(short) <= 15
    assert short.endswith(f"-{instance.rpartition('_')[2]}")
    assert "--" not in short
    assert hostname in {None, short}
