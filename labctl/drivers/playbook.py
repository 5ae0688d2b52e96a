"""Runs Ansible playbooks against one instance, once each, apart from the controller."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from pydantic import JsonValue

from labctl.drivers.command import start_detached
from labctl.drivers.extension import ExtensionError, ExtensionResult
from labctl.drivers.ssh import SshTarget, no_check
from labctl.drivers.ssh_exchange import OUTPUT_LIMIT, Check
from labctl.errors import HostError

_MEMORY = Path("/dev/shm")  # noqa: S108 - our folder in it is checked to be ours alone
_POLL = 0.2  # seconds
_END = timedelta(seconds=60)  # starting and killing
_STARTS = 3


def require_ansible() -> Path:
    """The program ansible-playbook: of this environment, or on the path. Raises HostError."""
    beside = Path(sys.executable).parent / "ansible-playbook"
    found = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if found is None:
        raise HostError(
            "program 'ansible-playbook' is not installed; extensions with a playbook need it",
            hint="run: pip install 'ansible-core>=2.17', in labctl's environment, or: apt-get "
            "install ansible-core",
        )
    return Path(found)


def run_playbook(
    target: SshTarget,
    *,
    instance: str,
    run_key: str,
    name: str,
    playbook: Path,
    settings: Mapping[str, JsonValue],
    protected: Mapping[str, JsonValue],
    timeout: timedelta,
    check: Check = no_check,
    memory: Path = _MEMORY,
) -> ExtensionResult:
    """Run a playbook as root in the instance, once for each `run_key`, and wait for its end.

    Whoever asks again for a key that is running waits for that run, also after the death of the
    controller that began it. The settings are in the variables `labctl_settings` and
    `labctl_protected_settings`, in files (0600) in memory that are removed after the run.

    Raises HostError without Ansible, ExtensionError when it cannot be run, and what `check` raises.
    """
    ansible = require_ansible()
    # A short name: OpenSSH makes a socket below it, whose path may have 107 characters.
    digest = hashlib.sha256(f"{target.host_key_public}\0{instance}\0{run_key}".encode())
    folder = _ensure_private(memory / f"labctl-{os.getuid()}") / digest.hexdigest()[:16]
    was_begun = (folder / "command.json").exists()
    if not was_begun:
        _prepare(folder, target, instance, settings, protected)
        order = {
            "arguments": [
                str(ansible),
                *("--inventory", str(folder / "inventory.json")),
                *("--extra-vars", f"@{folder / 'variables.yml'}"),
                "--",
                str(playbook),
            ],
            "seconds": max(1, math.ceil(timeout.total_seconds())),
            "environment": _environment(folder),
            "directory": str(playbook.parent),
        }
        (folder / "command.part").write_text(json.dumps(order))
        (folder / "command.part").rename(folder / "command.json")
    code = _await_end(folder, name, timeout, check)
    output = _read_end(folder / "output")
    shutil.rmtree(folder, ignore_errors=True)
    return ExtensionResult(
        exit_code=code, output=output, timed_out=code is None, was_resumed=was_begun
    )


def _await_end(folder: Path, name: str, timeout: timedelta, check: Check) -> int | None:
    end = time.monotonic() + (timeout + _END).total_seconds()
    pause, starts, quiet_until = threading.Event(), 0, 0.0
    while not (folder / "exit").exists():
        check()
        now = time.monotonic()
        if now >= quiet_until and not _is_running(folder) and not (folder / "exit").exists():
            if starts == _STARTS or now >= end:
                raise ExtensionError(
                    f"the playbook of extension {name!r} could not be run to its end",
                    hint="was Ansible killed, or did memory run out?",
                )
            starts += 1
            start_detached([sys.executable, "-P", "-m", "labctl.drivers.playbook_runner", folder])
            quiet_until = now + 5  # until its lock can be seen
        pause.wait(_POLL)
    code: int | None = json.loads((folder / "exit").read_text())["code"]
    return code


def _is_running(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _ensure_private(folder: Path) -> Path:
    """Make a folder for us alone. Raises HostError when somebody else was there first."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise HostError(
            f"{str(folder)!r} is not a directory of this user alone", hint="remove it, then retry"
        )
    return folder


def _prepare(
    folder: Path,
    target: SshTarget,
    instance: str,
    settings: Mapping[str, JsonValue],
    protected: Mapping[str, JsonValue],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of one who died before the command was written
    for each in (folder, folder / "tmp", folder / "control"):
        each.mkdir(mode=0o700)
    # A name without characters that OpenSSH and Ansible expand, whatever the state directory is.
    (folder / "key").symlink_to(target.key_path)
    _write(folder / "known_hosts", f"labctl {target.host_key_public}\n")
    options = {
        "UserKnownHostsFile": folder / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": "labctl",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
    }
    host = {
        "ansible_connection": "ssh",
        "ansible_host": target.host,
        "ansible_port": target.port,
        "ansible_user": target.user,
        "ansible_ssh_private_key_file": str(folder / "key"),
        "ansible_ssh_common_args": "-F none "
        + " ".join(f"-o {option}={value}" for option, value in options.items()),
        # The system's own, for which packages are; a play may set another in its `vars`.
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_become": target.user != "root",
    }
    _write(folder / "inventory.json", json.dumps({"all": {"hosts": {instance: host}}}))
    variables = {"labctl_settings": settings, "labctl_protected_settings": protected}
    _write(
        folder / "variables.yml",
        "".join(f"{name}: {_as_yaml(dict(value))}\n" for name, value in variables.items()),
    )


def _as_yaml(value: JsonValue) -> str:
    """JSON, with texts that Ansible does not take for templates, whatever they hold."""
    if isinstance(value, dict):
        inner = (f"{json.dumps(key)}: {_as_yaml(each)}" for key, each in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return f"!unsafe {json.dumps(value)}" if isinstance(value, str) else json.dumps(value)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return kept | {
        "LC_ALL": "C.UTF-8",  # Ansible insists on UTF-8
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=15s",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "control"),
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        # What tasks are given may be secret: no log here or there, no files on the guest's disk.
        "ANSIBLE_LOG_PATH": "/dev/null",
        "ANSIBLE_NO_TARGET_SYSLOG": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_REMOTE_TMP": "/dev/shm/labctl-ansible",  # noqa: S108 - Ansible makes it private
    }


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _read_end(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - OUTPUT_LIMIT))
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
