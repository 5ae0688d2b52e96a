"""What is packed here is unpacked by the shells that guests have."""

import json
import shutil
import subprocess

import pytest

from labctl.drivers.guest_settings import pack_settings, unpack_settings

UNPACK = """
mkdir -p settings protected
while read -r name value; do printf '%b' "$value" >"$name"; done <pack
"""
SHELLS = [["dash"], ["bash"], ["busybox", "ash"]]
AWKWARD = "a b\t\"c\" 'd' \\n $(id) `id` %s é\n*; -n\n\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[-1])
def test_any_text_arrives_as_it_was(shell, tmp_path):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    settings = {"text": AWKWARD, "number": 7, "list": [1, {"a": None}], "empty": ""}
    protected = {"token": AWKWARD * 200}
    (tmp_path / "pack").write_bytes(pack_settings(settings, protected))
    subprocess.run([*shell, "-c", UNPACK], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == settings
    assert json.loads((tmp_path / "protected.json").read_text()) == protected
    assert (tmp_path / "settings/text").read_text() == AWKWARD
    assert (tmp_path / "settings/number").read_text() == "7"
    assert (tmp_path / "settings/list").read_text() == '[1, {"a": null}]'
    assert (tmp_path / "settings/empty").read_text() == ""
    assert (tmp_path / "protected/token").read_text() == AWKWARD * 200


def test_without_settings_nothing_is_sent():
    assert pack_settings({}, {}) == b""


def test_a_guest_without_a_shell_gets_the_same_files():
    assert unpack_settings(pack_settings({"text": AWKWARD, "list": [1]}, {})) == [
        ("settings.json", json.dumps({"text": AWKWARD, "list": [1]})),
        ("settings/text", AWKWARD),
        ("settings/list", "[1]"),
        ("protected.json", "{}"),
    ]
    assert unpack_settings(b"") == []
