"""Runs one extension of one instance to its end, and says how it went."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from labctl.controller.build import ssh_target
from labctl.controller.clock import now
from labctl.controller.journal import fail, note
from labctl.controller.lab import Lab
from labctl.controller.resources import (
    MissingError,
    fetch,
    require_playbook,
    require_unexpired,
)
from labctl.controller.signals import Signal
from labctl.drivers.extension import ExtensionResult, run_extension
from labctl.drivers.failpoint import reach
from labctl.drivers.guest_settings import pack_settings
from labctl.drivers.playbook import run_playbook
from labctl.drivers.redact import Redactor
from labctl.drivers.resource import CredentialRefusedError, UnreachableError, UnusableError
from labctl.drivers.ssh import SshConnection
from labctl.drivers.ssh_exchange import OUTPUT_LIMIT
from labctl.errors import LabError
from labctl.model.event import EventKind
from labctl.model.extension_rules import FETCH_SETTINGS, walk_texts
from labctl.model.instance import ExtensionFault, ExtensionRun, Instance, Rung
from labctl.model.plan import RunExtension, ScaleSet
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.planner.health import extension_time_left
from labctl.planner.situation import survey
from labctl.store.instances import load_identity, save_extension_run

EXIT_CREDENTIAL = 77  # EX_NOPERM of sysexits.h: what a script says whose credential was refused
_LEAST_TIME = timedelta(seconds=1)
_OUTPUT_CUT = OUTPUT_LIMIT // 4  # characters; so long an output may have lost its beginning

Connect = Callable[[], SshConnection]


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a run went, with nothing secret in it."""

    exit_code: int | None
    output: str
    how: str  # for a failure
    fault: ExtensionFault | None = None


def run_one(
    lab: Lab,
    view: ScaleSet,
    instance: Instance,
    action: RunExtension,
    connect: Connect,
    signal: Signal,
) -> None:
    """Run it, or take up the run that is under way; record its end."""
    generation = instance.get_generation(action.generation)
    model = view.models[generation.model_revision]
    extension = next(e for e in model.extensions if e.name == action.extension)
    earlier = next((r for r in generation.extensions if r.name == extension.name), None)
    run = ExtensionRun(
        name=extension.name, started_at=now(), finished_at=None, exit_code=None, tag=action.tag
    )
    is_resumed = earlier is not None and earlier.finished_at is None
    if earlier is not None and is_resumed:  # a dead controller began it
        run = replace(run, started_at=earlier.started_at, tag=earlier.tag)
    with lab.database.write() as connection:
        save_extension_run(connection, instance.name, generation.number, run)
    reach("extension:recorded")
    left = extension_time_left(next(s for s in survey(view) if s.instance.name == instance.name))
    timeout = min(extension.timeout, max(left, _LEAST_TIME))
    try:
        if not is_resumed:
            require_unexpired(extension, now())
        content = _load(lab, view, instance, extension, is_resumed=is_resumed)
    except CredentialRefusedError as error:
        end = _no_run(error, ExtensionFault.CREDENTIAL)
    except (UnreachableError, UnusableError, MissingError) as error:
        end = _no_run(error, ExtensionFault.RESOURCE)
    else:
        if content is None:
            result = _run_playbook(lab, instance, extension, run, signal, timeout)
        else:
            result = _run_script(extension, run, instance, content, connect(), signal, timeout)
        end = _judge(extension, result, timeout)
    reach("extension:ran")
    ended = replace(
        run,
        finished_at=now(),
        exit_code=end.exit_code,
        output=end.output,
        fault=end.fault,
    )
    with lab.database.write() as connection:
        save_extension_run(connection, instance.name, generation.number, ended)
    seconds = (now() - run.started_at).total_seconds()
    if ended.has_succeeded:
        text = f"extension {extension.name!r} succeeded in {seconds:.1f} s, {action.reason}"
        note(lab.database, view, instance, EventKind.RUNG, text)
    elif extension.suppress_failures:
        text = f"extension {extension.name!r} {end.how}; it goes on, by its suppressFailures"
        note(lab.database, view, instance, EventKind.WARNING, text)
    else:
        text = f"extension {extension.name!r} {end.how}"
        fail(lab.database, view, instance, Rung.EXTENSIONS, text)


def find_secrets(models: Iterable[ScaleSetSpec]) -> Redactor:
    """Takes the protected settings of every extension of these models out of texts."""
    return Redactor(
        text
        for model in models
        for each in model.extensions
        for _, text in walk_texts(each.protected_settings)
    )


def _no_run(error: LabError, fault: ExtensionFault) -> _End:
    how = f"could not be run: {error.brief}"
    output = "\n".join(line for line in (error.brief, error.detail) if line)
    return _End(exit_code=None, output=output, how=how, fault=fault)


def _load(
    lab: Lab, view: ScaleSet, instance: Instance, extension: Extension, *, is_resumed: bool
) -> bytes | None:
    """The script; None for a playbook."""
    if extension.playbook is not None:
        require_playbook(extension)
        return None
    if extension.url is None:
        return (extension.script or "").encode()
    fetched = fetch(extension, lab.settings, is_resumed=is_resumed)
    if fetched.warning:
        text = f"extension {extension.name!r}: {fetched.warning}"
        note(lab.database, view, instance, EventKind.WARNING, text)
    return fetched.content


def _run_script(
    extension: Extension,
    run: ExtensionRun,
    instance: Instance,
    script: bytes,
    connection: SshConnection,
    signal: Signal,
    timeout: timedelta,
) -> ExtensionResult:
    protected = {
        name: value
        for name, value in extension.protected_settings.items()
        # What lets the controller fetch the script is no concern of the guest.
        if extension.url is None or name not in FETCH_SETTINGS
    }
    packed = pack_settings(extension.settings, protected)
    return run_extension(
        connection,
        run_key=_key(run, instance, script + packed),
        name=extension.name,
        script=script,
        timeout=timeout,
        settings=packed,
        is_private=bool(protected),
        check=signal.check,
    )


def _run_playbook(
    lab: Lab,
    instance: Instance,
    extension: Extension,
    run: ExtensionRun,
    signal: Signal,
    timeout: timedelta,
) -> ExtensionResult:
    with lab.database.read() as connection:
        identity = load_identity(connection, instance.name)
    told = json.dumps([extension.playbook, extension.settings, extension.protected_settings])
    return run_playbook(
        ssh_target(lab, identity),
        instance=instance.name,
        run_key=_key(run, instance, told.encode()),
        name=extension.name,
        playbook=require_playbook(extension),
        settings=extension.settings,
        protected=extension.protected_settings,
        timeout=timeout,
        check=signal.check,
    )


def _key(run: ExtensionRun, instance: Instance, content: bytes) -> str:
    digest = hashlib.sha256(f"{run.name}\0".encode() + content).hexdigest()[:12]
    # A later run on the same disk, asked for by its user, must not find the earlier result.
    return f"g{instance.generation}-{digest}-{run.started_at:%Y%m%d%H%M%S%f}"


def _judge(extension: Extension, result: ExtensionResult, timeout: timedelta) -> _End:
    redactor = Redactor(text for _, text in walk_texts(extension.protected_settings))
    output = redactor.redact(result.output, is_cut=len(result.output) >= _OUTPUT_CUT)
    fault = None
    how = f"ended with exit code {result.exit_code}: {last_line(output)}"
    if result.timed_out:
        how = f"did not end within {timeout.total_seconds():g} s: {last_line(output)}"
    elif result.exit_code == EXIT_CREDENTIAL and extension.protected_settings:
        names = ", ".join(f"protectedSettings.{name}" for name in extension.protected_settings)
        fault = ExtensionFault.CREDENTIAL
        how = f"says (exit code {EXIT_CREDENTIAL}) that a credential was refused, of {names}: "
        how += last_line(output)
    return _End(exit_code=result.exit_code, output=output, how=how, fault=fault)


def last_line(output: str) -> str:
    """The last line of an output that is not blank, for a message."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
