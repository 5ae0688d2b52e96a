"""Runs scripts in guests: once each, detached from the connection that started them."""

import math
import re
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

from labctl.drivers.guest_script import RERUN_CUSTOM_DATA, RUN_EXTENSION, as_root
from labctl.drivers.guest_settings import unpack_settings
from labctl.drivers.ssh import (
    CommandResult,
    SshConnection,
    SshError,
    SshTarget,
    no_check,
    wait_for_ssh,
)
from labctl.drivers.ssh_exchange import Check, OnOutput
from labctl.errors import LabError
from labctl.guest.windows_scripts import as_powershell, build_extension

STATE_DIR = "/var/lib/labctl/extensions"  # in the guest, on its OS disk
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERDICT = re.compile(
    r"^labctl-extension code=(\d+|none) timed_out=([01]) resumed=([01])\r?$", re.M
)
_START_AND_END = timedelta(seconds=120)  # starting, killing at the time-out, a busy guest
_RECONNECT = timedelta(seconds=60)


class ExtensionError(LabError):
    """The script could not be started, or the guest does not say how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionResult:
    """How a script ended."""

    exit_code: int | None  # None: timed out, killed from outside, or cut off by restarts
    output: str  # the last 64 KiB of stdout and stderr together
    timed_out: bool
    was_resumed: bool  # an earlier call had started it, or had even seen it end

    @property
    def has_succeeded(self) -> bool:
        """Did it end with exit code 0?"""
        return self.exit_code == 0


def run_extension(
    connection: SshConnection,
    *,
    run_key: str,
    name: str,
    script: bytes,
    timeout: timedelta,
    on_output: OnOutput | None = None,
    check: Check = no_check,
    force: bool = False,
    settings: bytes = b"",
    is_private: bool = False,
    state_dir: str = STATE_DIR,
) -> ExtensionResult:
    """Run a script as root in the guest, once for each `run_key`, and wait for its end.

    A key that is running is waited for; one that has ended gives the recorded result again. `force`
    forgets a recorded result first. The script runs on when the connection or the controller dies;
    this function then connects again by itself. At the time-out the guest kills the script and all
    that it started. A script that a restart of the guest cut off begins anew, at most twice.
    `on_output` may see the last output again after a lost connection.

    `settings` come from `guest_settings.pack_settings`. They and, when `is_private`, the output
    touch no disk of the guest; the output can then be fetched only once. In a Windows guest
    they are on its disk for the time of the run, for administrators only; there nothing is private.

    Raises ExtensionError, TimedOutError when the guest cannot be reached again, and what `check`
    raises.
    """
    if is_private and connection.target.is_windows:
        raise ExtensionError(
            f"extension {name!r} has protected settings, which Windows cannot keep"
        )
    if not _KEY.fullmatch(run_key):
        raise ExtensionError(f"the key {run_key!r} of extension {name!r} is not a file name")
    seconds = max(1, math.ceil(timeout.total_seconds()))
    end = time.monotonic() + (timeout + _START_AND_END).total_seconds()
    current, is_forced = connection, force
    try:
        while True:
            arguments = [state_dir, run_key, str(len(script)), str(seconds)]
            arguments += ["force" if is_forced else "", str(len(settings))]
            arguments += ["private" if is_private else ""]
            command, stdin = as_root(RUN_EXTENSION, arguments), script + settings
            if connection.target.is_windows:
                command = as_powershell()
                stdin = build_extension(
                    key=run_key,
                    script=script,
                    seconds=seconds,
                    settings=unpack_settings(settings),
                    is_forced=is_forced,
                )
            try:
                result = current.run(
                    command,
                    stdin=stdin,
                    timeout=timedelta(seconds=max(1.0, end - time.monotonic())),
                    on_output=on_output,
                    check=check,
                )
            except SshError:
                if time.monotonic() >= end:
                    raise
                if current is not connection:
                    current.close()
                current = wait_for_ssh(connection.target, deadline=_RECONNECT, check=check)
                is_forced = False  # the first call may have begun the new run
                continue
            return _read_result(result, name, connection.target)
    finally:
        if current is not connection:
            current.close()


def rerun_custom_data(
    connection: SshConnection,
    *,
    run_key: str = "",
    timeout: timedelta = timedelta(minutes=30),
    check: Check = no_check,
) -> CommandResult:
    """Run the user's custom data once more on the same OS disk; stdout is what it printed.

    With cloud-init this repeats from the user-data of the last boot: bootcmd, write_files,
    packages, runcmd, and scripts (`#!`). Users, SSH keys, disks, mounts and the host name are not
    touched, and modules that run at every boot run as they do there. In the tiny image it repeats
    the script. The same `run_key` never repeats it twice; without one, every call does.
    """
    result = run_extension(
        connection,
        run_key=run_key or f"custom-data-{secrets.token_hex(8)}",
        name="custom data",
        script=RERUN_CUSTOM_DATA.encode(),
        timeout=timeout,
        check=check,
    )
    return CommandResult(
        exit_code=result.exit_code, stdout=result.output, stderr="", timed_out=result.timed_out
    )


def _read_result(result: CommandResult, name: str, target: SshTarget) -> ExtensionResult:
    verdicts = _VERDICT.findall(result.stderr)
    if not verdicts:
        reason = (result.stderr.strip().splitlines() or ["no answer in time"])[-1]
        raise ExtensionError(
            f"extension {name!r} could not be run: {reason}",
            hint="labctl logs in as an administrator, and PowerShell must be in the path"
            if target.is_windows
            else "labctl logs in as a user who may use sudo without a password",
        )
    code, timed_out, resumed = verdicts[-1]
    return ExtensionResult(
        exit_code=None if code == "none" else int(code),
        output=result.stdout,
        timed_out=timed_out == "1",
        was_resumed=resumed == "1",
    )
