"""Hands the terminal over to OpenSSH, with the instance's pinned host key."""

import os
from pathlib import Path

from labctl.drivers.ssh import SshTarget
from labctl.errors import HostError


def exec_ssh(target: SshTarget, *, alias: str, command: list[str], state_dir: Path) -> None:
    """Replace this process by `ssh`, which is given `command` as OpenSSH gives it to a shell.

    Raises HostError when OpenSSH is not installed.
    """
    known_hosts = state_dir / "ssh" / f"known_hosts.{alias}"
    # The alias stands for host and port, so that the file has one line, whatever the port is.
    known_hosts.write_text(f"{alias} {target.host_key_public}\n")
    words = [
        "ssh",
        "-i",
        str(target.key_path),
        "-p",
        str(target.port),
        *_option("User", target.user),
        *_option("HostKeyAlias", alias),
        *_option("UserKnownHostsFile", _quoted(known_hosts)),
        *_option("GlobalKnownHostsFile", "/dev/null"),
        *_option("StrictHostKeyChecking", "yes"),
        *_option("IdentitiesOnly", "yes"),
        *_option("IdentityAgent", "none"),
        *_option("LogLevel", "ERROR"),
        target.host,
        *(["--", *command] if command else []),
    ]
    try:
        os.execvp("ssh", words)  # noqa: S606 - no shell is wanted
    except FileNotFoundError as error:
        raise HostError(
            "program 'ssh' is not installed", hint="run: apt-get install openssh-client"
        ) from error


def _option(name: str, value: str) -> list[str]:
    return ["-o", f"{name}={value}"]


def _quoted(path: Path) -> str:
    # ssh_config splits file names at blanks unless they are quoted, and expands % itself.
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
