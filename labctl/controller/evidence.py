"""Saves what was found when an instance failed, before its disk is put back."""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from labctl.controller.build import console_log
from labctl.controller.clock import now
from labctl.controller.extensions import find_secrets
from labctl.controller.lab import Lab
from labctl.controller.prober import Sample
from labctl.drivers.redact import Redactor
from labctl.drivers.serial_log import clean_text
from labctl.drivers.ssh import SshConnection
from labctl.errors import HostError, LabError
from labctl.guest.windows_scripts import as_powershell, build_custom_data_output
from labctl.model.instance import Generation, Instance
from labctl.model.plan import CollectEvidence, ScaleSet
from labctl.store.hooks import load_hook_runs
from labctl.store.instances import change_generation, find_console_offset
from labctl.store.upgrades import load_upgrade

SERIAL_TAIL = 60  # lines that `labctl upgrade show` prints; the whole boot is in serial.log
_ASK = timedelta(seconds=20)
_GUEST_SCRIPT = b"""
if command -v cloud-init >/dev/null 2>&1; then
    cloud-init status --long 2>&1
    echo '--- the end of cloud-init-output.log'
    tail -n 40 /var/log/cloud-init-output.log 2>&1
else
    cat /run/labctl/custom-data.json 2>&1
    echo '--- the end of custom-data.log'
    tail -n 40 /var/log/custom-data.log 2>&1
fi
"""


def collect_evidence(
    lab: Lab,
    view: ScaleSet,
    instance: Instance,
    action: CollectEvidence,
    *,
    samples: Sequence[Sample],
    connection: SshConnection | None,
) -> None:
    """Write evidence.json and serial.log (0600) and record that they are there.

    Raises HostError when they cannot be written: the disk is then not put back yet.
    """
    generation = instance.find_generation(action.generation) or instance.current
    with lab.database.read() as transaction:
        offset = find_console_offset(transaction, instance.name, generation.number)
        runs = load_hook_runs(transaction, upgrade=action.upgrade, instance=instance.name)
    serial = _read_from(console_log(lab, view.name, instance.name), offset)
    folder = lab.settings.evidence_dir(action.upgrade, instance.name)
    evidence: dict[str, object] = {
        "instance": instance.name,
        "upgrade": action.upgrade,
        "generation": generation.number,
        "imageVersion": generation.image_version,
        "reason": action.reason,
        "rung": _rung(generation),
        "collectedAt": now().isoformat(),
        "power": instance.domain.power.value,
        "powerReason": instance.domain.reason,
        "serialTail": clean_text(serial).splitlines()[-SERIAL_TAIL:],
        "customData": _ask_guest(connection),
        "extensions": [
            {
                "name": run.name,
                "startedAt": run.started_at.isoformat(),
                "finishedAt": run.finished_at.isoformat() if run.finished_at else None,
                "exitCode": run.exit_code,
                "fault": run.fault.value if run.fault else None,
                "output": run.output,
            }
            for run in generation.extensions
        ],
        "hooks": [
            {
                "hook": run.kind.value,
                "startedAt": run.started_at.isoformat(),
                "finishedAt": run.finished_at.isoformat() if run.finished_at else None,
                "exitCode": run.exit_code,
                "message": run.message,
                "output": run.output,
            }
            for run in runs
        ],
        "healthSamples": [
            {"at": s.at.isoformat(), "state": s.state.value, "detail": s.detail} for s in samples
        ],
    }
    redactor = find_secrets(view.models.values())
    evidence = {key: _redact(value, redactor) for key, value in evidence.items()}
    serial = redactor.redact(serial.decode(errors="surrogateescape")).encode(
        errors="surrogateescape"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / "serial.log", serial)
        _write(folder / "evidence.json", json.dumps(evidence, indent=2).encode())
    except OSError as error:
        raise HostError(
            f"cannot save the evidence of {instance.name} in {str(folder)!r}",
            detail=str(error),
            hint="free space, then run: labctl upgrade watch " + view.name,
        ) from error
    with lab.database.write() as transaction:
        change_generation(transaction, instance.name, generation.number, evidence_at=now())


def load_evidence(lab_dir: Path) -> dict[str, Any] | None:
    """The evidence in a folder of `Settings.evidence_dir`, if there is any."""
    try:
        found: dict[str, Any] = json.loads((lab_dir / "evidence.json").read_text())
    except FileNotFoundError:
        return None
    return found


def load_all_evidence(lab: Lab, upgrade_id: int) -> dict[str, dict[str, Any]]:
    """The evidence of every failed instance of an upgrade, by instance."""
    with lab.database.read() as transaction:
        upgrade = load_upgrade(transaction, upgrade_id)
    found = {
        name: load_evidence(lab.settings.evidence_dir(upgrade_id, name))
        for member in upgrade.members
        for name in member.pair
    }
    return {name: evidence for name, evidence in found.items() if evidence is not None}


def _redact(value: object, redactor: Redactor) -> object:
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, list):
        return [_redact(each, redactor) for each in value]
    if isinstance(value, dict):
        return {key: _redact(each, redactor) for key, each in value.items()}
    return value


def _rung(generation: Generation) -> str:
    if generation.failure is not None:
        return generation.failure.rung.value
    return "health"  # everything below it was in order


def _ask_guest(connection: SshConnection | None) -> str:
    if connection is None:
        return "not asked: there was no SSH connection"
    command, stdin = ["sudo", "-n", "sh", "-s"], _GUEST_SCRIPT
    if connection.target.is_windows:
        command, stdin = as_powershell(), build_custom_data_output()
    try:
        result = connection.run(command, stdin=stdin, timeout=_ASK)
    except LabError as error:
        return f"not available: {error.brief}"
    return result.stdout + result.stderr


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as stream:
            # virtlogd begins a new file when one grows large; then all of it is of this boot.
            stream.seek(offset if offset <= path.stat().st_size else 0)
            return stream.read()
    except FileNotFoundError:
        return b""


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
