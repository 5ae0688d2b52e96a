"""The readiness ladder: from power-on to the end of custom data, each rung with a deadline."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from labctl.drivers.guest_script import AWAIT_CUSTOM_DATA, CUSTOM_DATA_OUTPUT, as_root
from labctl.drivers.serial_log import SerialLog
from labctl.drivers.ssh import (
    CancelledError,
    CommandResult,
    SshConnection,
    SshError,
    SshTarget,
    wait_for_ssh,
)
from labctl.errors import LabError, TimedOutError
from labctl.guest.windows_scripts import as_powershell, build_await, build_custom_data_output
from labctl.model.instance import Rung

_SERIAL_EACH = 0.5  # seconds between two looks at the serial log
_SERIAL_TAIL = 20
_ANSWER = timedelta(seconds=60)  # a small command in a busy emulated guest


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long each rung may take."""

    ssh: timedelta  # from now to a login
    custom_data: timedelta  # from the login to the end of custom data


class StopSignal(Protocol):
    """How somebody else ends a climb: a message says that the instance failed, none cancels."""

    event: threading.Event
    message: str


class NotReadyError(LabError):
    """The instance did not get up; `rung` says how far it came."""

    def __init__(
        self,
        rung: Rung,
        message: str,
        *,
        serial_tail: tuple[str, ...] = (),
        output: str = "",
    ) -> None:
        lines = []
        if output.strip():
            lines += ["custom data printed last:", *_indented(output.strip().splitlines()[-20:])]
        if serial_tail:
            lines += ["last lines of the serial console:", *_indented(serial_tail)]
        super().__init__(message, detail="\n".join(lines))
        self.rung = rung
        self.message = message
        self.serial_tail = serial_tail
        self.output = output


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReport:
    """An instance that is up."""

    connection: SshConnection  # open; the caller closes it
    ssh_time: timedelta
    custom_data_time: timedelta
    boot_id: str
    image: dict[str, str]  # /etc/labctl-image: IMAGE_VERSION, IMAGE_BUILD_ID, ...; may be empty
    data_disks: tuple[str, ...]  # "db: mounted"
    warning: str  # custom data ended degraded; empty: it ended well


OnRung = Callable[[Rung, str], None]


def climb(
    target: SshTarget,
    *,
    console_log: Path,
    console_offset: int,
    deadlines: Deadlines,
    failed: StopSignal,
    on_rung: OnRung = lambda _rung, _text: None,
) -> ReadyReport:
    """Wait until the instance has run its custom data.

    Raises NotReadyError with the rung, CancelledError when `failed` is set without a message, and
    HostError when the controller's own key cannot be used.
    """
    watch = _Watch(SerialLog(console_log, offset=console_offset), failed)
    start = time.monotonic()
    connection = _reach(target, deadlines.ssh, watch)
    try:
        ssh_time = timedelta(seconds=time.monotonic() - start)
        watch.rung = Rung.CUSTOM_DATA
        on_rung(Rung.SSH, f"login by SSH after {ssh_time.total_seconds():.1f} s")
        start = time.monotonic()
        connection, facts = _await_custom_data(connection, deadlines.custom_data, watch)
        warning = _judge(connection, facts, deadlines.custom_data, watch)
        custom_data_time = timedelta(seconds=time.monotonic() - start)
        how = f" with a warning: {warning}" if warning else ""
        on_rung(
            Rung.CUSTOM_DATA,
            f"custom data done {custom_data_time.total_seconds():.1f} s later{how}",
        )
    except BaseException:
        connection.close()
        raise
    return ReadyReport(
        connection=connection,
        ssh_time=ssh_time,
        custom_data_time=custom_data_time,
        boot_id=facts.boot_id,
        image=facts.image,
        data_disks=tuple(f"{d['name']}: {d['state']}" for d in facts.boot.get("dataDisks", ())),
        warning=f"custom data ended with a warning: {warning}" if warning else "",
    )


class _Watch:
    """Looks, while something else is waited for, whether waiting still makes sense."""

    def __init__(self, log: SerialLog, signal: StopSignal) -> None:
        self.log = log
        self.rung = Rung.POWER_ON
        self._signal = signal
        self._next = 0.0

    def check(self) -> None:
        if self._signal.event.is_set():
            if not self._signal.message:
                raise CancelledError("waiting for the instance was cancelled")
            raise self.failure(self._signal.message)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SERIAL_EACH
        for finding in self.log.poll():
            if finding.is_fatal:
                raise self.failure(finding.message)

    def failure(self, message: str, *, rung: Rung | None = None, output: str = "") -> NotReadyError:
        self.log.poll()
        return NotReadyError(
            rung or self.rung, message, serial_tail=self.log.tail(_SERIAL_TAIL), output=output
        )


def _reach(target: SshTarget, deadline: timedelta, watch: _Watch) -> SshConnection:
    try:
        return wait_for_ssh(target, deadline=deadline, check=watch.check)
    except TimedOutError as error:
        reason = f": {error.detail}" if error.detail else ""
        raise watch.failure(
            f"no login by SSH within {deadline.total_seconds():.0f} s{reason}", rung=Rung.SSH
        ) from error
    except SshError as error:  # the host key
        raise watch.failure(f"{error.brief}; {error.hint}", rung=Rung.SSH) from error


@dataclass(slots=True)
class _Facts:
    """What the guest said."""

    boot_id: str
    image: dict[str, str]
    boot: dict[str, Any]
    outcome: str
    documents: dict[str, dict[str, Any]]


def _await_custom_data(
    connection: SshConnection, deadline: timedelta, watch: _Watch
) -> tuple[SshConnection, _Facts]:
    """One command waits in the guest; custom data that restarts the guest makes it two."""
    end = time.monotonic() + deadline.total_seconds()
    while True:
        left = timedelta(seconds=max(1.0, end - time.monotonic()))
        try:
            result = _ask_for_custom_data(connection, left, watch)
        except SshError as error:
            connection.close()
            watch.check()
            if time.monotonic() >= end:
                raise watch.failure(f"{error.brief} while custom data ran") from error
            connection = _reach(connection.target, left, watch)
            continue
        facts = _parse(result.stdout)
        if result.timed_out or (facts.outcome == "" and result.has_succeeded):
            raise watch.failure(_late(deadline))
        if not result.has_succeeded:
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.exit_code}"])[-1]
            raise watch.failure(f"the guest cannot be asked for custom data as root: {reason}")
        return connection, facts


def _ask_for_custom_data(
    connection: SshConnection, left: timedelta, watch: _Watch
) -> CommandResult:
    seconds, stdin = int(left.total_seconds()), b""
    command = as_root(AWAIT_CUSTOM_DATA, [str(seconds)])
    if connection.target.is_windows:
        command, stdin = as_powershell(), build_await(seconds)
    return connection.run(command, stdin=stdin, timeout=left + _ANSWER, check=watch.check)


def _parse(stdout: str) -> _Facts:
    facts = _Facts(boot_id="", image={}, boot={}, outcome="", documents={})
    for line in stdout.splitlines():
        key, _, value = line.partition(" ")
        if key == "boot-id":
            facts.boot_id = value
        elif key == "outcome":
            facts.outcome = value
        elif key == "image":
            name, _, text = value.partition("=")
            facts.image[name] = text.strip("\"'")
        elif key in {"boot", "status", "result", "custom-data"}:
            facts.documents[key] = _load(value)
    facts.boot = facts.documents.get("boot", {})
    return facts


def _load(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _judge(connection: SshConnection, facts: _Facts, deadline: timedelta, watch: _Watch) -> str:
    """Return a warning, or nothing. Raises NotReadyError when the instance must not be used."""
    # Without its data disk an application would write to the OS disk, and lose it in an upgrade.
    broken = [
        f"data disk {disk['name']}: {disk['detail']}"
        for disk in facts.boot.get("dataDisks", ())
        if disk.get("state") == "failed"
    ]
    if broken:
        raise watch.failure("; ".join(broken))
    errors, warnings = _verdict(facts, deadline)
    if errors:
        command, stdin = as_root(CUSTOM_DATA_OUTPUT), b""
        if connection.target.is_windows:
            command, stdin = as_powershell(), build_custom_data_output()
        output = connection.run(command, stdin=stdin, timeout=_ANSWER, check=watch.check)
        raise watch.failure(f"custom data failed: {'; '.join(errors)}", output=output.stdout)
    return "; ".join(warnings)


def _verdict(facts: _Facts, deadline: timedelta) -> tuple[list[str], list[str]]:
    """Return errors and warnings, as `cloud-init status` would tell them apart."""
    kind, _, rest = facts.outcome.partition(" ")
    if kind == "timeout":
        return [_late(deadline)], []
    if kind == "disabled":
        return ["cloud-init is disabled in this image, so that nothing runs custom data"], []
    if kind == "custom-data":
        document = facts.documents.get("custom-data", {})
        if document.get("status") == "done":
            return [], []
        exit_code = document.get("exitCode")
        return [str(document.get("detail") or f"it ended with exit code {exit_code}")], []
    errors = [f"{rest} failed"] if kind == "failed-unit" else []
    errors += [str(e) for e in facts.documents.get("result", {}).get("v1", {}).get("errors", ())]
    warnings: list[str] = []
    for stage in facts.documents.get("status", {}).get("v1", {}).values():
        if isinstance(stage, dict):
            errors += [str(e) for e in stage.get("errors", ()) if str(e) not in errors]
            for messages in stage.get("recoverable_errors", {}).values():
                warnings += [str(message) for message in messages]
    if kind == "cloud-init" and "result" not in facts.documents:
        errors.append("cloud-init left no readable result")
    return errors, list(dict.fromkeys(warnings))


def _late(deadline: timedelta) -> str:
    return f"custom data did not end within {deadline.total_seconds():.0f} s"


def _indented(lines: list[str] | tuple[str, ...]) -> list[str]:
    return [f"  {line}" for line in lines]
