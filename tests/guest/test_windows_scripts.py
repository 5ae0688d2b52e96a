"""The PowerShell scripts by their shape; there is no Windows here to run them."""

import base64
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.guest.boot_script import AgentConfig, DataDiskMount
from labctl.guest.windows_scripts import (
    WindowsBootConfig,
    as_powershell,
    as_script,
    build_await,
    build_custom_data_script,
    build_extension,
    build_launcher,
    build_windows_boot_script,
)

SCRIPTS = Path(__file__).parents[2] / "labctl" / "guest" / "windows"
AWKWARD = "'; Remove-Item C:\\ # $(x) \u00fc\n"
CONFIG = WindowsBootConfig(
    instance_id="web_3-g2-0a1b2c3d",
    host_key="secret\n",
    host_key_public="ssh-ed25519 CCCC\n",
    authorized_keys=("ssh-ed25519 AAAA labctl\n", " ", "ssh-ed25519 BBBB"),
    enable_automatic_updates=False,
    custom_data="",
    data_disks=(DataDiskMount(name="db", file_system="ntfs", mount_point="E:"),),
    health=AgentConfig(
        token="hush",
        protocol="http",
        app_port=80,
        request_path=f"/{AWKWARD}",
        interval=timedelta(seconds=5),
        number_of_probes=2,
    ),
)


def split(script):
    """The values in front of a script, and the rest."""
    text = script if isinstance(script, str) else script.decode()
    head, rest = text.split("\n", 1)
    encoded = re.fullmatch(
        r"\$config = ConvertFrom-Json \(\[Text\.Encoding\]::UTF8\.GetString\("
        r"\[Convert\]::FromBase64String\('([A-Za-z0-9+/=]+)'\)\)\)",
        head,
    )
    return json.loads(base64.b64decode(encoded[1])), rest


def decode(text):
    return base64.b64decode(text).decode()


def body(script, name):
    """The text of one function."""
    return re.search(rf"^function {name}\b.*?^}}", script, re.M | re.S)[0]


def test_values_are_data_in_front_of_a_constant_script():
    values, rest = split(build_windows_boot_script(CONFIG))
    assert rest == (SCRIPTS / "boot.ps1").read_text()
    assert values["authorizedKeys"] == ["ssh-ed25519 AAAA labctl", "ssh-ed25519 BBBB"]
    assert decode(values["hostKey"]) == "secret\n"
    assert decode(values["hostKeyPublic"]) == "ssh-ed25519 CCCC\n"
    assert values["dataDisks"] == [{"name": "db", "fileSystem": "ntfs", "mountPoint": "E:"}]
    assert values["enableAutomaticUpdates"] is False
    assert decode(values["health"]["source"]) == (SCRIPTS / "agent.cs").read_text()
    lines = decode(values["health"]["config"])
    assert f"requestPath=/{AWKWARD}" in lines
    assert "hush" not in lines


@pytest.mark.parametrize(
    ("custom_data", "kind"),
    [("", ""), ("#ps1\n", "script"), ("#cloud-config\n", "parts")],
)
def test_the_boot_script_says_how_the_end_of_custom_data_is_told(custom_data, kind):
    config = WindowsBootConfig(
        instance_id="a",
        host_key="",
        host_key_public="",
        authorized_keys=(),
        enable_automatic_updates=True,
        custom_data=custom_data,
    )
    values, _ = split(build_windows_boot_script(config))
    assert (values["customData"], values["health"]) == (kind, None)


@pytest.mark.parametrize("path", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_what_windows_powershell_reads_without_a_mark_is_ascii(path):
    assert path.read_bytes().isascii()


def test_the_user_s_script_is_carried_as_it_is_and_marked_where_it_must_be():
    plain = "#ps1_sysnative\nexit 0\n"
    values, _ = split(build_custom_data_script("a", plain))
    assert (values["kind"], decode(values["content"])) == ("ps1", plain)
    values, _ = split(build_custom_data_script("a", plain + AWKWARD))
    assert decode(values["content"]) == "\ufeff" + plain + AWKWARD
    values, _ = split(build_custom_data_script("a", "rem cmd\n" + AWKWARD))
    assert (values["kind"], decode(values["content"])) == ("cmd", "rem cmd\n" + AWKWARD)
    assert as_script(b"\xef\xbb\xbf\xc3", "ps1") == b"\xef\xbb\xbf\xc3"
    assert build_custom_data_script("a", "#cloud-config\n") is None


def test_only_a_cd_rom_is_taken_for_the_seed():
    finds = (SCRIPTS / "launcher.ps1").read_text().partition("Where-Object {")[2].partition("}")[0]
    assert "$_.DriveType -eq 'CD-ROM' -and $_.FileSystemLabel -eq 'cidata'" in finds


def test_the_boot_task_runs_the_launcher_and_only_the_first_boot_the_custom_data():
    values, _ = split(build_windows_boot_script(CONFIG))
    launcher = base64.b64decode(values["launcher"]).decode("utf-16-le")
    begin = (SCRIPTS / "launcher.ps1").read_text()
    assert launcher == begin + '& "$($seed.DriveLetter):\\labctl-boot.ps1"\n'
    assert build_launcher(has_script=False) == (
        f"#ps1_sysnative\n{begin}"
        "if (-not (Get-ScheduledTask labctl-boot -ErrorAction SilentlyContinue)) {\n"
        '    & "$($seed.DriveLetter):\\labctl-boot.ps1"\n}\n'
    )
    assert build_launcher(has_script=True).startswith(build_launcher(has_script=False))
    assert "labctl-custom-data.ps1" not in launcher
    assert len(values["launcher"]) < 8000  # of a command line's 8191 characters


def test_the_command_needs_no_quoting_in_any_shell():
    assert all(re.fullmatch(r"[A-Za-z0-9+/=.-]+", word) for word in as_powershell())


def test_what_waits_and_what_runs_extensions_have_their_values():
    values, rest = split(build_await(7))
    assert (values, rest) == ({"seconds": 7}, (SCRIPTS / "await.ps1").read_text())
    made = build_extension(
        key="g1-a", script=b"exit 3\n", seconds=9, settings=[("a", AWKWARD)], is_forced=True
    )
    values, rest = split(made)
    assert rest == (SCRIPTS / "extension.ps1").read_text()
    assert decode(values.pop("runner")) == (SCRIPTS / "runner.ps1").read_text()
    assert decode(values.pop("script")) == "exit 3\n"
    assert values == {
        "key": "g1-a",
        "kind": "ps1",
        "seconds": 9,
        "settings": [{"file": "a", "content": AWKWARD}],
        "isForced": True,
    }


@pytest.mark.parametrize(
    ("script", "kind"), [(b"rem cmd\r\ndir", "cmd"), (b"remark", "ps1"), (b"", "ps1")]
)
def test_cmd_is_asked_for_by_the_first_line(script, kind):
    made = build_extension(key="a", script=script, seconds=1, settings=[], is_forced=False)
    assert split(made)[0]["kind"] == kind


def test_only_a_disk_that_is_blank_or_half_made_gets_a_file_system():
    script = (SCRIPTS / "boot.ps1").read_text()
    maker = body(script, "Format-DataDisk")
    for word in ("Initialize-Disk ", "New-Partition ", "Format-Volume "):
        assert script.count(word) == maker.count(word) == 1, word
    assert not re.search(r"Clear-Disk|Remove-Partition|diskpart|Resize-", script, re.I)
    caller = body(script, "Initialize-DataDisk")
    rule = "-eq 'ntfs' -and ((Test-Unfinished $disk $mark) -or (Test-Blank $disk))"
    assert script.count("Format-DataDisk $disk") == caller.count("Format-DataDisk $disk") == 1
    assert caller.index(rule) < caller.index("Format-DataDisk $disk")
    blank = body(script, "Test-Blank")
    assert "-eq 'RAW' -and [LabctlRawDisk]::IsBlank(" in blank


def test_the_boot_is_reported_last():
    script = (SCRIPTS / "boot.ps1").read_text()
    assert script.index("DeleteValue('boot'") < script.index("foreach ($wanted in")
    assert script.rindex("SetValue('boot'") > script.index("Start-Ssh (Install-Keys)")
