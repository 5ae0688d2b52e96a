"""What the seed carries beside the user's data: the boot script and cloud-init's vendor-data."""

import base64
import hashlib
import json
import math
import shlex
from dataclasses import dataclass
from datetime import timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from importlib.resources import files

AGENT_PORT = 17800
# The agent needs no rights. systemd wants a name for `User=`, so the agent changes to it by itself;
# the number is of a range that nobody hands out.
AGENT_UID = 61178
SCRIPT_NAME = "labctl-boot.sh"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiskMount:
    """What to do with one data disk; it is found by its serial, `data-<name>`."""

    name: str
    file_system: str | None  # "ext4", "ntfs": made if the disk is blank
    mount_point: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What the health agent asks, and who may ask the agent."""

    token: str
    protocol: str  # "http", "https", "tcp"
    app_port: int
    request_path: str | None  # None for tcp
    interval: timedelta
    number_of_probes: int
    type_handler_version: str = "1.0"  # "2.0": rich states, told by the body
    grace_period: timedelta | None = None  # None: interval x number of probes
    port: int = AGENT_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class BootConfig:
    """Everything that the boot script of one generation knows."""

    instance_id: str
    host_key: str  # private, OpenSSH format
    host_key_public: str
    controller_public_key: str
    authorized_keys: tuple[str, ...] = ()  # of people, who log in as `labctl` too
    data_disks: tuple[DataDiskMount, ...] = ()
    health: AgentConfig | None = None


def build_boot_script(config: BootConfig) -> str:
    """Return the script that prepares the instance at every boot. Equal input, equal text.

    Every value is quoted or in base64: the shell never interprets what a user wrote.
    """
    keys = "".join(f"{key.strip()}\n" for key in (config.controller_public_key, *_keys(config)))
    calls = [_functions(), "# --- This instance " + "-" * 60]
    calls += [
        shlex.join(["ensure_data_disk", d.name, d.file_system or "", d.mount_point or ""])
        for d in config.data_disks
    ]
    calls.append(_call("ensure_account", keys))
    calls.append(_call("ensure_host_key '' 600", config.host_key))
    calls.append(_call("ensure_host_key .pub 644", config.host_key_public.strip() + "\n"))
    if config.health is not None:
        calls += _agent_calls(config.health)
    calls.append(shlex.join(["finish", config.instance_id]))
    return "\n".join(calls) + "\n"


def build_vendor_data(boot_script: str, host_key: str, host_key_public: str) -> bytes:
    """Return cloud-init's vendor-data: host keys, and the boot script as a boothook.

    A boothook, because `runcmd` and `write_files` of the user replace those of vendor-data, and
    because it runs at every boot before sshd. With `ssh_keys` given, cloud-init generates no key
    of its own, whatever `ssh_genkeytypes` says; an RSA key takes an emulated guest 20 seconds.
    """
    cloud_config = {
        "ssh_keys": {"ed25519_private": host_key, "ed25519_public": host_key_public.strip()},
        "ssh": {"emit_keys_to_console": False},
    }
    # JSON is YAML, and needs no care for what the values hold.
    texts = (
        ("cloud-config", "labctl.cfg", "#cloud-config\n" + json.dumps(cloud_config) + "\n"),
        ("cloud-boothook", SCRIPT_NAME, boot_script),
    )
    message = MIMEMultipart(boundary=_boundary(*(text for _, _, text in texts)))
    for subtype, name, text in texts:
        part = MIMEText(text, subtype, "us-ascii")
        part.add_header("Content-Disposition", "attachment", filename=name)
        message.attach(part)
    return message.as_bytes()


def _keys(config: BootConfig) -> tuple[str, ...]:
    return tuple(key for key in config.authorized_keys if key.strip())


def _functions() -> str:
    return _guest_file("boot.sh").decode()


def _guest_file(name: str) -> bytes:
    return files("labctl.guest").joinpath(name).read_bytes()


def list_agent_values(agent: AgentConfig) -> dict[str, str | int]:
    """What the agent is configured with, whatever it is written in."""
    grace_period = agent.grace_period or agent.interval * agent.number_of_probes
    return {
        # The guest can check the token without being able to tell it.
        "tokenSha256": hashlib.sha256(agent.token.encode()).hexdigest(),
        "tokenLineSha256": hashlib.sha256(f"{agent.token}\n".encode()).hexdigest(),
        "port": agent.port,
        "protocol": agent.protocol,
        "appPort": agent.app_port,
        "requestPath": agent.request_path or "",
        "intervalSeconds": int(agent.interval.total_seconds()),
        "numberOfProbes": agent.number_of_probes,
        "typeHandlerVersion": agent.type_handler_version,
        "gracePeriodSeconds": math.ceil(grace_period.total_seconds()),
    }


def _agent_calls(agent: AgentConfig) -> list[str]:
    values = {**list_agent_values(agent), "uid": AGENT_UID}
    lines = "".join(f"{key}={value}\n" for key, value in values.items())
    return [
        "begin_agent",
        _call("agent_file config.json", json.dumps(values) + "\n"),
        _call("agent_file config", lines),
        _call("agent_file agent.py", _guest_file("agent.py").decode()),
        _call("agent_file agent.sh", _guest_file("agent.sh").decode()),
        "start_agent",
    ]


def _call(command: str, content: str) -> str:
    encoded = base64.encodebytes(content.encode()).decode()
    return f"{command} <<'LABCTL'\n{encoded}LABCTL"


def _boundary(*texts: str) -> str:
    """Fixed by the content, so that equal input makes an equal seed."""
    return "labctl-" + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
