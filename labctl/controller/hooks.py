"""Runs the hooks that drain an instance and put it back to work, and writes down how they went."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from labctl.controller.build import ssh_target
from labctl.controller.clock import now
from labctl.controller.extensions import find_secrets, last_line
from labctl.controller.journal import note
from labctl.controller.lab import Lab
from labctl.controller.signals import Signal
from labctl.drivers.extension import run_extension
from labctl.drivers.failpoint import reach
from labctl.drivers.guest_settings import pack_settings
from labctl.drivers.program import KEPT, run_program
from labctl.drivers.ssh import SshConnection
from labctl.errors import LabError
from labctl.model.event import EventKind
from labctl.model.hook import Hook
from labctl.model.instance import HookFailure, Instance
from labctl.model.notification import Topic
from labctl.model.plan import RunHook, ScaleSet
from labctl.planner.hook_facts import end_hook
from labctl.store.hooks import HookRun, begin_hook_run, end_hook_run
from labctl.store.instances import change_instance, load_identity, save_hook_failure

_OUTPUT_CUT = KEPT // 4  # characters; so long an output may have lost its beginning

Connect = Callable[[timedelta], SshConnection]  # not longer than that


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a hook went; `fault` is empty when it went well."""

    exit_code: int | None
    output: str
    fault: str = ""


def run_hook(
    lab: Lab,
    view: ScaleSet,
    instance: Instance,
    action: RunHook,
    connect: Connect,
    signal: Signal,
) -> None:
    """Run it, or take up a script that is under way; record how it ended.

    Raises LabError when it was cancelled: then it is run again, should it still be wanted.
    """
    hook = view.spec.upgrade_policy.hooks.find(action.kind)
    if hook is None:
        return  # it was taken out of the spec a moment ago
    with lab.database.write() as connection:
        run = begin_hook_run(
            connection,
            scale_set=view.name,
            instance=instance.name,
            created_at=instance.created_at,
            upgrade=_find_upgrade(view, instance),
            kind=action.kind,
            reason=action.reason,
            now=now(),
        )
    reach("hook:recorded")
    try:
        end = _run(lab, view, instance, hook, run, connect, signal)
    except LabError as error:
        if signal.is_cancelled:
            raise
        fault = f"{error.brief}; {error.hint}" if error.hint else error.brief
        end = _End(exit_code=None, output=str(error), fault=fault)
    reach("hook:ran")
    _record(lab, view, instance, action, run, end)


def _run(
    lab: Lab,
    view: ScaleSet,
    instance: Instance,
    hook: Hook,
    run: HookRun,
    connect: Connect,
    signal: Signal,
) -> _End:
    told = describe(view, instance, run)
    if hook.command is not None:
        with lab.database.read() as connection:
            identity = load_identity(connection, instance.name)
        target = ssh_target(lab, identity)
        variables = {
            "LABCTL_HOOK": told["hook"],
            "LABCTL_SCALE_SET": told["scaleSet"],
            "LABCTL_INSTANCE": told["instance"],
            "LABCTL_ORDINAL": told["ordinal"],
            "LABCTL_IMAGE_VERSION": told["imageVersion"],
            "LABCTL_UPGRADE": told["upgrade"],
            "LABCTL_REASON": told["reason"],
            "LABCTL_ADDRESS": target.host,
            "LABCTL_SSH_PORT": str(target.port),
        }
        done = run_program(
            hook.command,
            stdin="",
            variables=variables,
            timeout=hook.timeout,
            check=signal.check,
            lock=lab.settings.locks_dir / f"hook-{instance.name}.lock",
        )
        code, output, is_late = done.exit_code, done.output, done.exit_code is None
    else:
        script = (hook.script or "").encode()
        digest = hashlib.sha256(script).hexdigest()[:12]
        result = run_extension(
            connect(hook.timeout),
            # The same run after a restart of the controller is the same key: not run again.
            run_key=f"{run.kind}-{digest}-{run.started_at:%Y%m%d%H%M%S%f}",
            name=run.kind.value,
            script=script,
            timeout=hook.timeout,
            settings=pack_settings(told, {}),
            check=signal.check,
        )
        code, output, is_late = result.exit_code, result.output, result.timed_out
    # The guest may run with an older model than the one that it is to have, and its secrets.
    redactor = find_secrets(view.models.values())
    output = redactor.redact(output, is_cut=len(output) >= _OUTPUT_CUT)
    fault = f"exit code {code}: {last_line(output)}" if code != 0 else ""
    if is_late:
        fault = f"did not end within {hook.timeout.total_seconds():g} s: {last_line(output)}"
    return _End(exit_code=code, output=output, fault=fault)


def describe(view: ScaleSet, instance: Instance, run: HookRun) -> dict[str, str]:
    """What a hook is told about its errand."""
    booted = instance.find_generation(instance.domain.generation or 0) or instance.current
    return {
        "hook": run.kind.value,
        "scaleSet": view.name,
        "instance": instance.name,
        "ordinal": str(instance.ordinal),
        "imageVersion": booted.image_version,
        "upgrade": "" if run.upgrade is None else str(run.upgrade),
        "reason": run.reason,
    }


def _record(
    lab: Lab, view: ScaleSet, instance: Instance, action: RunHook, run: HookRun, end: _End
) -> None:
    moment = now()
    is_refusal = bool(end.fault) and action.is_binding
    tries = 1
    if instance.hook_failure is not None and instance.hook_failure.kind is action.kind:
        tries = instance.hook_failure.tries + 1
    with lab.database.write() as connection:
        end_hook_run(
            connection,
            run.id,
            exit_code=end.exit_code,
            has_failed=bool(end.fault),
            message=end.fault,
            output=end.output,
            now=moment,
        )
        if is_refusal:
            failure = HookFailure(kind=action.kind, at=moment, message=end.fault, tries=tries)
            save_hook_failure(connection, instance.name, failure)
        else:
            after = end_hook(instance, action, moment)
            change_instance(
                connection,
                instance.name,
                drained_at=after.drained_at,
                out_of_service_since=after.out_of_service_since,
            )
            save_hook_failure(connection, instance.name, None)
    seconds = f"{(moment - run.started_at).total_seconds():.1f} s"
    if is_refusal:
        kind, text = EventKind.FAILURE, f"{action.kind} failed after {seconds}: {end.fault}"
    elif end.fault:
        kind = EventKind.WARNING
        text = f"{action.kind} failed after {seconds}: {end.fault}; labctl goes on"
    else:
        kind, text = EventKind.STEP, f"{action.kind} succeeded in {seconds}, {action.reason}"
    note(
        lab.database,
        view,
        instance,
        kind,
        text,
        detail=end.output[-2000:],
        topic=Topic.HOOK_FAILED if end.fault else Topic.HOOK_SUCCEEDED,
    )


def _find_upgrade(view: ScaleSet, instance: Instance) -> int | None:
    """The upgrade that the hook is run for."""
    upgrade = view.upgrade
    is_its = upgrade is not None and any(
        instance.name in m.pair and (m.state.is_moving or m.replaced_by is not None)
        for m in upgrade.members
    )
    return upgrade.id if upgrade is not None and is_its else None
