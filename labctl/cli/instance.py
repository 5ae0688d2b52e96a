"""The commands for single instances."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import Context, current_context
from labctl.cli.output import Output, print_document, print_rows
from labctl.cli.wishes import Deadline, parse_deadline
from labctl.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from labctl.model.instance import Generation, Wanted
    from labctl.model.plan import ScaleSet

_HOOK_RUNS = 6  # that are shown: three times drain and undrain

Name = Annotated[str, typer.Argument(metavar="INSTANCE", help="For example web_3.")]
Names = Annotated[
    list[str], typer.Argument(metavar="INSTANCE", help="One or more, for example web_3.")
]


def list_(
    scale_set: Annotated[
        str | None, typer.Argument(metavar="SCALE_SET", help="Only of this one.")
    ] = None,
) -> None:
    """List instances as they are now."""
    from labctl.cli.describe import choose_columns, describe_instance
    from labctl.cli.follow import opened_lab
    from labctl.controller.work import look_once
    from labctl.store.scale_sets import get_scale_set, load_scale_sets

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            if scale_set is not None:
                get_scale_set(connection, scale_set)
            names = [
                row.name
                for row in load_scale_sets(connection)
                if scale_set is None or row.name == scale_set
            ]
        rows = []
        for name in names:
            view, plan = look_once(lab, name)
            rows += [describe_instance(lab, view, plan, instance) for instance in view.instances]
    print_rows(rows, choose_columns(rows), context.output, empty="no instances")


def show(name: Name) -> None:
    """Show one instance with its OS disks, extensions, data disks and latest hook runs."""
    from labctl.cli.describe import describe_instance
    from labctl.cli.evidence import describe_run, print_hook_runs
    from labctl.cli.follow import opened_lab
    from labctl.controller.build import console_log
    from labctl.controller.work import look_once
    from labctl.store.data_disks import load_data_disks
    from labctl.store.hooks import load_hook_runs
    from labctl.store.instances import find_scale_set_of

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            scale_set = find_scale_set_of(connection, name)
        view, plan = look_once(lab, scale_set)
        instance = next(i for i in view.instances if i.name == name)
        with lab.database.read() as connection:
            disks = load_data_disks(connection, scale_set, instance.ordinal)
            # Not those of an earlier instance of the same name.
            runs = load_hook_runs(
                connection, instance=name, since=instance.created_at, limit=_HOOK_RUNS
            )
        document = describe_instance(lab, view, plan, instance) | {
            "consoleLog": console_log(lab, scale_set, name),
            "osDisks": [
                {
                    "number": generation.number,
                    "imageVersion": generation.image_version,
                    "modelRevision": generation.model_revision,
                    "startedAt": generation.started_at,
                    "readyAt": generation.ready_at,
                    "failure": None
                    if generation.failure is None
                    else f"{generation.failure.rung.value}: {generation.failure.message}",
                    "extensions": [
                        {
                            "name": run.name,
                            "exitCode": run.exit_code,
                            "startedAt": run.started_at,
                            "finishedAt": run.finished_at,
                            "fault": run.fault.value if run.fault else None,
                            "forceUpdateTag": run.tag,
                            "suppressed": not run.has_succeeded
                            and run.name in _find_tolerated(view, generation),
                        }
                        for run in generation.extensions
                    ],
                }
                for generation in instance.generations
            ],
            "dataDisks": [
                {"name": disk.name, "path": disk.path, "size": disk.size} for disk in disks
            ],
        }
    if context.output is Output.TABLE:
        print_document(document, context.output)
        print_hook_runs(runs)
        return
    print_document({**document, "hooks": [describe_run(run) for run in runs]}, context.output)


def _find_tolerated(view: "ScaleSet", generation: "Generation") -> set[str]:
    model = view.models[generation.model_revision]
    return {each.name for each in model.extensions if each.suppress_failures}


def start(names: Names, timeout: Deadline = None) -> None:
    """Start instances that were stopped."""
    from labctl.model.instance import Wanted

    _change_power(names, Wanted.RUNNING, timeout)


def stop(names: Names, timeout: Deadline = None) -> None:
    """Shut instances down and keep them so; they do not count as unhealthy."""
    from labctl.model.instance import Wanted

    _change_power(names, Wanted.STOPPED, timeout)


def restart(names: Names, timeout: Deadline = None) -> None:
    """Shut instances down and start them again; also tries again what failed."""
    from labctl.controller.clock import now
    from labctl.controller.desired import restart as record_restart

    context = current_context()
    _work(context, names, timeout, lambda connection: record_restart(connection, names, now=now()))


def reimage(names: Names, timeout: Deadline = None) -> None:
    """Replace OS disks with fresh ones of the same image version; data disks stay."""
    from labctl.controller.clock import now
    from labctl.controller.desired import reimage as record_reimage

    context = current_context()
    _work(context, names, timeout, lambda connection: record_reimage(connection, names, now=now()))


def ssh(
    name: Name,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="What to run; none: a login shell."),
    ] = None,
) -> None:
    """Log in to an instance, or run a command in it; its host key is verified."""
    from labctl.cli.follow import opened_lab
    from labctl.drivers.ssh_client import exec_ssh
    from labctl.store.instances import load_identity

    context = current_context()
    with opened_lab(context) as lab:
        from labctl.controller.build import ssh_target

        with lab.database.read() as connection:
            identity = load_identity(connection, name)
        target = ssh_target(lab, identity)
    sys.stdout.flush()
    exec_ssh(target, alias=name, command=command or [], state_dir=context.settings.state_dir)


def console(name: Name) -> None:
    """Attach to the serial console; Ctrl-] leaves."""
    from labctl.cli.follow import opened_lab
    from labctl.store.instances import find_scale_set_of

    context = current_context()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RefusedError(
            "the console needs a terminal",
            hint=f"to read what was written: labctl instance logs {name}",
        )
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            find_scale_set_of(connection, name)
        print(f"{name}: serial console; Ctrl-] leaves", file=sys.stderr)
        lab.hypervisor.open_console(name, sys.stdin.fileno(), sys.stdout.fileno())


def logs(
    name: Name,
    boot: Annotated[bool, typer.Option("--boot", help="Only since the last power-on.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=1, help="Only the last N lines.")
    ] = None,
) -> None:
    """Print what the instance wrote to its serial console, from the first byte on."""
    from labctl.cli.follow import opened_lab
    from labctl.controller.build import console_log
    from labctl.drivers.serial_log import clean_text
    from labctl.store.instances import find_console_offset, find_scale_set_of, load_instances

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            scale_set = find_scale_set_of(connection, name)
            instance = next(i for i in load_instances(connection, scale_set) if i.name == name)
            offset = find_console_offset(connection, name, instance.generation) if boot else 0
        path = console_log(lab, scale_set, name)
    try:
        content = path.read_bytes()[offset:]
    except FileNotFoundError:
        content = b""
    shown = clean_text(content).splitlines()
    if lines is not None:
        shown = shown[-lines:]
    if context.output is Output.TABLE:
        print("\n".join(shown))
    else:
        print_document({"instance": name, "path": path, "lines": shown}, context.output)


def _change_power(names: list[str], wanted: "Wanted", timeout: str | None) -> None:
    from labctl.controller.clock import now
    from labctl.controller.desired import set_wanted

    context = current_context()
    _work(
        context, names, timeout, lambda connection: set_wanted(connection, names, wanted, now=now())
    )


def _work(
    context: Context, names: list[str], timeout: str | None, record: "Callable[[Connection], None]"
) -> None:
    from labctl.cli.follow import follow, last_event, opened_lab
    from labctl.controller.goal import instances_as_wanted
    from labctl.store.instances import find_scale_set_of

    deadline = parse_deadline(timeout)
    results = []
    with opened_lab(context) as lab:
        lab.check()
        since = last_event(lab.database)
        with lab.database.write() as connection:
            owners = {name: find_scale_set_of(connection, name) for name in names}
            record(connection)
        for scale_set in sorted(set(owners.values())):
            chosen = frozenset(name for name in names if owners[name] == scale_set)
            outcome = follow(
                context,
                lab,
                scale_set,
                instances_as_wanted(chosen),
                deadline=deadline,
                since=since,
            )
            results.append({"scaleSet": scale_set, "message": outcome.message})
    if context.output is Output.TABLE:
        for result in results:
            print(f"{result['scaleSet']}: {result['message']}")
    else:
        print_document(results, context.output)
