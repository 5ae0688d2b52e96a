"""What the seed of a Windows instance carries, and what labctl runs there: PowerShell scripts.

They are constants; what varies comes before them as JSON in base64, never into the text.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pydantic import JsonValue

from labctl.guest.boot_script import AgentConfig, DataDiskMount, list_agent_values
from labctl.model.windows import find_script_kind

BOOT_NAME = "labctl-boot.ps1"
CUSTOM_DATA_NAME = "labctl-custom-data.ps1"
_RUN_BOOT = f'& "$($seed.DriveLetter):\\{BOOT_NAME}"\n'
_MARK = b"\xef\xbb\xbf"  # without it Windows PowerShell takes a script for one of an old code page
# `$input` is what Windows PowerShell makes of stdin. Errors are told as text: as objects they would
# come as XML.
_READ_STDIN = (
    "$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'; "
    "[Console]::OutputEncoding = New-Object Text.UTF8Encoding $false; "
    "$text = @($input) -join [char]10; "
    "try { . ([ScriptBlock]::Create($text)) } "
    "catch { [Console]::Error.WriteLine($_.Exception.Message); exit 1 }"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsBootConfig:
    """Everything that the boot script of one generation knows."""

    instance_id: str
    host_key: str  # private, OpenSSH format
    host_key_public: str
    authorized_keys: tuple[str, ...]  # of the controller and of people
    enable_automatic_updates: bool
    custom_data: str  # the user's; empty: none
    data_disks: tuple[DataDiskMount, ...] = ()
    health: AgentConfig | None = None


def build_windows_boot_script(config: WindowsBootConfig) -> str:
    """Return the script that prepares the instance at every boot. Equal input, equal text."""
    kind = ""
    if config.custom_data.strip():
        kind = "script" if find_script_kind(config.custom_data) else "parts"
    values: dict[str, JsonValue] = {
        "instanceId": config.instance_id,
        "launcher": encode_command(_guest_text("launcher.ps1") + _RUN_BOOT),
        "hostKey": _encode(config.host_key),
        "hostKeyPublic": _encode(config.host_key_public.strip() + "\n"),
        "authorizedKeys": [key.strip() for key in config.authorized_keys if key.strip()],
        "enableAutomaticUpdates": config.enable_automatic_updates,
        "customData": kind,
        "dataDisks": [
            {"name": disk.name, "fileSystem": disk.file_system, "mountPoint": disk.mount_point}
            for disk in config.data_disks
        ],
        "health": None if config.health is None else _describe_agent(config.health),
    }
    return compose("boot.ps1", values)


def build_launcher(*, has_script: bool) -> str:
    """Return what cloudbase-init runs: the boot script of the seed, then the user's if it is there.

    It holds nothing secret, because cloudbase-init writes all user-data to its log.
    """
    # A later boot, or an image that was made of an instance, has the task, which runs by itself.
    find_task = "Get-ScheduledTask labctl-boot -ErrorAction SilentlyContinue"
    text = f"#ps1_sysnative\n{_guest_text('launcher.ps1')}"
    text += f"if (-not ({find_task})) {{\n    {_RUN_BOOT}}}\n"
    if has_script:
        text += f'& "$($seed.DriveLetter):\\{CUSTOM_DATA_NAME}"\nexit $LASTEXITCODE\n'
    return text


def build_custom_data_script(instance_id: str, custom_data: str) -> str | None:
    """Return what runs the user's script once and keeps how it ended; None: it is no script."""
    kind = find_script_kind(custom_data)
    if kind is None:
        return None
    content = base64.b64encode(as_script(custom_data.encode(), kind)).decode()
    return compose("custom_data.ps1", {"instanceId": instance_id, "kind": kind, "content": content})


def compose(name: str, config: Mapping[str, JsonValue]) -> str:
    """Put the values of one call before a script of `labctl/guest/windows`. ASCII only."""
    encoded = base64.b64encode(json.dumps(config, sort_keys=True).encode()).decode()
    return (
        "$config = ConvertFrom-Json ([Text.Encoding]::UTF8.GetString([Convert]::FromBase64String("
        f"'{encoded}')))\n{_guest_text(name)}"
    )


def as_powershell() -> list[str]:
    """Return the command that runs the script on its stdin, in cmd.exe and PowerShell alike."""
    return [
        *("powershell.exe", "-NoProfile", "-NonInteractive", "-OutputFormat", "Text"),
        *("-ExecutionPolicy", "Bypass", "-EncodedCommand", encode_command(_READ_STDIN)),
    ]


def build_await(seconds: int) -> bytes:
    """Return what waits for the end of custom data and tells it as the script for Linux does."""
    return compose("await.ps1", {"seconds": seconds}).encode()


def build_custom_data_output() -> bytes:
    """Return what prints the last lines that custom data printed."""
    return _guest_text("custom_data_output.ps1").encode()


def build_extension(
    *,
    key: str,
    script: bytes,
    seconds: int,
    settings: Sequence[tuple[str, str]],
    is_forced: bool,
) -> bytes:
    """Return what runs an extension once by a task of its own and waits for its end.

    `settings` are files below the directory that LABCTL_SETTINGS_DIR names, with their content.
    """
    first = script[:80].split(b"\n", 1)[0].decode("latin-1").lower().split()[:2]
    kind = "cmd" if first == ["rem", "cmd"] else "ps1"
    return compose(
        "extension.ps1",
        {
            "key": key,
            "script": base64.b64encode(as_script(script, kind)).decode(),
            "kind": kind,
            "runner": _encode(_guest_text("runner.ps1")),
            "seconds": seconds,
            "settings": [{"file": file, "content": content} for file, content in settings],
            "isForced": is_forced,
        },
    ).encode()


def as_script(content: bytes, kind: str) -> bytes:
    """Mark a PowerShell script with other than ASCII characters as UTF-8."""
    is_plain = kind == "cmd" or content.isascii() or content.startswith(_MARK)
    return content if is_plain else _MARK + content


def encode_command(text: str) -> str:
    """Encode a script as `-EncodedCommand` wants it; nothing in it needs quoting in any shell."""
    return base64.b64encode(text.encode("utf-16-le")).decode()


def _describe_agent(agent: AgentConfig) -> dict[str, JsonValue]:
    lines = "".join(f"{key}={value}\n" for key, value in list_agent_values(agent).items())
    return {
        "port": agent.port,
        "config": _encode(lines),
        "source": _encode(_guest_text("agent.cs")),
    }


def _guest_text(name: str) -> str:
    return files("labctl.guest").joinpath("windows", name).read_text(encoding="ascii")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
