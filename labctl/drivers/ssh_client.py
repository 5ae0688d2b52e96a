"""Hands the terminal over to OpenSSH, with the instance's pinned host key."""

import os
from pathlib import Path

from labctl.drivers.ssh import SshTarget
from labctl.errors import HostError


def exec_ssh(target: SshTarget, *, alias: str, command: list[str], state_dir: Path) -> None:
    """Replace this process by `ssh`, which is given `command` as OpenSSH gives it to a shell.

    Raises HostError when OpenSSH is not installed or its file of host keys cannot be written.
    """
    directory = state_dir / "ssh"
    known_hosts = f"known_hosts.{alias}"
    _write(directory / known_hosts, f"{alias} {target.host_key_public}\n")
    # Relative names: OpenSSH expands % and ${...} in file names, and cannot be told not to.
    os.chdir(directory)
    words = [
        "ssh",
        *("-F", "none"),  # a proxy or shared connection of the user's would go round the host key
        *_option("IdentityFile", os.path.relpath(target.key_path, directory)),
        *_option("Port", str(target.port)),
        *_option("User", target.user),
        # The alias stands for host and port, so that the file has one line, whatever the port is.
        *_option("HostKeyAlias", alias),
        *_option("UserKnownHostsFile", known_hosts),
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


def _write(path: Path, text: str) -> None:
    try:
        # Written only when it changed: to log in must work on a full disk too.
        if not path.exists() or path.read_text(encoding="ascii") != text:
            path.write_text(text, encoding="ascii")
    except OSError as error:
        raise HostError(
            f"cannot write {str(path)!r}",
            detail=error.strerror or str(error),
            hint="free space, or check owner and permissions: labctl doctor",
        ) from error
