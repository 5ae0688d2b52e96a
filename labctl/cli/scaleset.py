"""The commands for whole scale sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import Context, current_context
from labctl.cli.output import Column, Output, format_cell, print_document, print_rows
from labctl.cli.spec_plain import make_plain
from labctl.cli.wishes import Deadline, Name, NoWait, confirm, parse_deadline
from labctl.errors import InvalidError

if TYPE_CHECKING:
    from labctl.model.spec import ScaleSetSpec


def apply(
    spec_file: Annotated[
        Path, typer.Argument(metavar="SPEC.yaml", help="The spec; - reads standard input.")
    ],
    timeout: Deadline = None,
    no_wait: NoWait = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would change and what it needs.")
    ] = False,
) -> None:
    """Make a scale set as its spec says, or change it. Run again, it changes nothing.

    In the upgrade modes Automatic and Rolling it also brings a changed model to the instances.
    """
    from labctl.cli.spec_file import load_spec

    context = current_context()
    deadline = parse_deadline(timeout)
    spec = load_spec(spec_file)
    if dry_run:
        _foresee(context, spec)
        return

    from labctl.cli.follow import follow, has_worked, last_event, opened_lab
    from labctl.cli.model import describe_needs, print_needs
    from labctl.controller.clock import now
    from labctl.controller.desired import apply_spec
    from labctl.controller.goal import model_in_force
    from labctl.controller.resources import require_tools_and_resources
    from labctl.model.upgrade import Upgrade
    from labctl.store.upgrades import find_running_upgrade, load_upgrades

    with opened_lab(context) as lab:
        lab.check()  # before anything changes
        require_tools_and_resources(spec, now=now(), settings=lab.settings)
        since = last_event(lab.database)
        with lab.database.write() as connection:
            running = find_running_upgrade(connection, spec.name)
            past = load_upgrades(connection, spec.name, limit=1)
            applied = apply_spec(connection, spec, now=now())
        if context.output is Output.TABLE:
            print_needs(applied.impacts, applied.needs)

        def find_newest() -> Upgrade | None:
            with lab.database.read() as connection:
                return next(iter(load_upgrades(connection, spec.name, limit=1)), None)

        after = running.id - 1 if running else past[0].id if past else 0
        outcome = None
        if not no_wait:
            goal = model_in_force(find_newest, after=after)
            outcome = follow(context, lab, spec.name, goal, deadline=deadline, since=since)
        worked = has_worked(lab.database, spec.name, since)
    if context.output is Output.TABLE:
        if not applied.changes and not worked:
            print(f"{spec.name}: nothing to change" + (f", {outcome.message}" if outcome else ""))
        elif outcome is not None:
            print(f"{spec.name}: {outcome.message}")
        else:
            print(f"{spec.name}: recorded; run: labctl apply {spec_file}")
        return
    print_document(
        {
            "name": spec.name,
            "created": applied.created,
            "changed": bool(applied.changes) or worked,
            "changes": list(applied.changes),
            "message": outcome.message if outcome else "recorded",
            **describe_needs(applied.impacts, applied.needs),
        },
        context.output,
    )


def _foresee(context: Context, spec: "ScaleSetSpec") -> None:
    """`apply --dry-run`."""
    from labctl.cli.follow import opened_store
    from labctl.cli.model import describe_needs, print_needs
    from labctl.controller.clock import now
    from labctl.controller.desired import foresee_spec

    with opened_store(context) as database:
        applied = foresee_spec(database, spec, now=now())
    if context.output is Output.TABLE:
        for change in applied.changes or ("nothing to change",):
            print(f"{spec.name}: {change}")
        print_needs(applied.impacts, applied.needs)
        return
    print_document(
        {
            "name": spec.name,
            "dryRun": True,
            "created": applied.created,
            "changes": list(applied.changes),
            "mode": spec.upgrade_policy.mode.value,
            **describe_needs(applied.impacts, applied.needs),
        },
        context.output,
    )


def get(name: Name) -> None:
    """Print the spec of a scale set, as `labctl apply` reads it."""
    from labctl.cli.follow import opened_store
    from labctl.controller.desired import load_wish

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        spec = load_wish(connection, name)
    plain = make_plain(spec)
    print_document(plain, Output.YAML if context.output is Output.TABLE else context.output)


def show(name: Name) -> None:
    """Show a scale set with its instances, as they are now."""
    from labctl.cli.describe import choose_columns, describe_instance
    from labctl.cli.follow import opened_lab
    from labctl.cli.repairs import describe_service
    from labctl.controller.work import look_once

    context = current_context()
    with opened_lab(context) as lab:
        view, plan = look_once(lab, name)
    instances = [describe_instance(lab, view, plan, instance) for instance in view.instances]
    upgrade = view.upgrade
    document = {
        "name": view.name,
        "capacity": view.spec.capacity,
        "image": view.spec.image.definition,
        "imageReference": view.spec.image.version,
        "imageVersion": view.image_version,
        "modelRevision": view.model_revision,
        "isDeleting": view.is_deleting,
        "upgrade": None if upgrade is None else upgrade.id,
        "automaticRepairs": describe_service(view),
        "holds": [hold.reason for hold in plan.holds if hold.subject == view.name],
    }
    if context.output is not Output.TABLE:
        print_document({**document, "instances": instances}, context.output)
        return
    print_document(document, context.output)
    print()
    print_rows(instances, choose_columns(instances), context.output, empty="no instances")


def list_() -> None:
    """List the scale sets."""
    from labctl.cli.follow import opened_store
    from labctl.controller.desired import NO_CAPACITY
    from labctl.store.scale_sets import load_scale_sets, load_view

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        views = [
            load_view(connection, row.name, capacity=NO_CAPACITY)
            for row in load_scale_sets(connection)
        ]
    rows = [
        {
            "name": view.name,
            "capacity": view.spec.capacity,
            "instances": len(view.instances),
            "image": view.spec.image.definition,
            "imageVersion": view.image_version,
            "upgrade": None if view.upgrade is None else view.upgrade.code.value,
            "isDeleting": view.is_deleting,
        }
        for view in views
    ]
    print_rows(
        rows,
        [
            "name",
            Column(key="capacity", right=True),
            Column(key="instances", right=True),
            "image",
            "imageVersion",
            "upgrade",
        ],
        context.output,
        empty="no scale sets; make one with: labctl apply SPEC.yaml",
    )


def scale(
    name: Name,
    capacity: Annotated[
        int, typer.Argument(min=0, max=1000, metavar="N", help="How many instances.")
    ],
    timeout: Deadline = None,
    no_wait: NoWait = False,
) -> None:
    """Change the number of instances. Data disks of removed instances are kept."""
    from labctl.cli.follow import follow, last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.desired import scale as record_capacity
    from labctl.controller.goal import converged

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        lab.check()
        since = last_event(lab.database)
        with lab.database.write() as connection:
            changed = record_capacity(connection, name, capacity, now=now())
        outcome = None
        if not no_wait:
            outcome = follow(context, lab, name, converged, deadline=deadline, since=since)
    message = outcome.message if outcome else "recorded"
    if outcome is None and context.output is Output.TABLE:
        message += f"; run: labctl scale {name} {capacity}"
    if not changed:
        message = f"nothing to change, capacity is {capacity} already; {message}"
    _say(context.output, name, message, changed=changed)


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Deadline = None,
) -> None:
    """Delete a scale set with its instances and OS disks. Data disks stay; see `labctl disk`."""
    from labctl.cli.follow import follow, last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.desired import delete_scale_set
    from labctl.controller.goal import deleted
    from labctl.store.scale_sets import get_scale_set

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            get_scale_set(connection, name)
        confirm(f"delete scale set {name} and all its instances?", yes=yes)
        since = last_event(lab.database)
        with lab.database.write() as connection:
            kept = delete_scale_set(connection, name, now=now())
        follow(context, lab, name, deleted, deadline=deadline, since=since)
    message = "deleted"
    if kept:
        message += f"; {kept} data disks are kept, see: labctl disk list {name}"
    _say(context.output, name, message, changed=True)


def events(
    name: Annotated[
        str | None, typer.Argument(metavar="SCALE_SET", help="Only of this one.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this instance.")
    ] = None,
    upgrade: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=2**31, help="Only of this upgrade.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest that many.")] = 100,
) -> None:
    """List what happened, oldest first."""
    from labctl.cli.follow import opened_store
    from labctl.store.events import load_events

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        found = load_events(
            connection, scale_set=name, instance=instance, upgrade=upgrade, limit=limit
        )
    rows = [
        {
            "at": event.at,
            "subject": event.subject,
            "kind": event.kind.value,
            "message": event.message,
            "scaleSet": event.scale_set,
            "instance": event.instance,
            "upgrade": event.upgrade,
            "topic": event.topic,
            "detail": event.detail,
        }
        for event in found
    ]
    columns = ["at", "subject", "kind", "message"]
    print_rows(rows, columns, context.output, empty="no events")


def rerun(
    name: Name,
    custom_data: Annotated[
        bool, typer.Option("--custom-data", help="Run custom data again.")
    ] = False,
    extensions: Annotated[
        bool, typer.Option("--extensions", help="Run all extensions again.")
    ] = False,
    instance: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    timeout: Deadline = None,
) -> None:
    """Run custom data or extensions again on the present OS disks."""
    if not (custom_data or extensions):
        raise InvalidError(
            "nothing to run again is named", hint="give --custom-data, --extensions or both"
        )
    from labctl.cli.follow import follow, last_event, opened_lab
    from labctl.controller.clock import now
    from labctl.controller.desired import rerun as record_rerun
    from labctl.controller.goal import converged

    context = current_context()
    deadline = parse_deadline(timeout)
    with opened_lab(context) as lab:
        lab.check()
        since = last_event(lab.database)
        with lab.database.write() as connection:
            record_rerun(
                connection,
                name,
                instances=instance or [],
                custom_data=custom_data,
                extensions=extensions,
                now=now(),
            )
        outcome = follow(context, lab, name, converged, deadline=deadline, since=since)
    _say(context.output, name, outcome.message, changed=True)


def why(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="For example web_3.")],
) -> None:
    """Explain what an instance is doing or waiting for, and how it came to that."""
    from labctl.cli.evidence import print_lines
    from labctl.cli.follow import opened_lab
    from labctl.controller.clock import now
    from labctl.controller.work import look_once
    from labctl.planner import explain
    from labctl.store.events import load_events
    from labctl.store.instances import find_scale_set_of

    context = current_context()
    with opened_lab(context) as lab:
        with lab.database.read() as connection:
            scale_set = find_scale_set_of(connection, instance)
            recent = load_events(connection, instance=instance, limit=10)
        view, _ = look_once(lab, scale_set)
        asked = next(found for found in view.instances if found.name == instance)
        reasons = explain(view, asked, now())
    if context.output is not Output.TABLE:
        print_document(
            {"instance": instance, "reasons": list(reasons), "events": recent}, context.output
        )
        return
    for reason in reasons:
        print(f"{instance}: {format_cell(reason)}")
    print("\nrecent events:")
    for event in recent:
        message = format_cell(event.message)
        print(f"  {event.at:%Y-%m-%dT%H:%M:%SZ}  {event.kind.value:<8}  {message}")
        print_lines(event.detail, indent="      ")


def _say(output: Output, name: str, message: str, *, changed: bool) -> None:
    if output is Output.TABLE:
        print(f"{name}: {message}")
    else:
        print_document({"name": name, "changed": changed, "message": message}, output)
