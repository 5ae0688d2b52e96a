"""The commands for automatic repairs."""

from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Column, Output, print_document, print_rows
from labctl.cli.wishes import Name

if TYPE_CHECKING:
    from labctl.model.plan import ScaleSet
    from labctl.model.repair import Repair


def status(name: Name) -> None:
    """Show whether unhealthy instances are repaired, and which are being repaired."""
    from labctl.cli.follow import opened_store
    from labctl.controller.desired import NO_CAPACITY
    from labctl.store.scale_sets import load_view

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        view = load_view(connection, name, capacity=NO_CAPACITY)
    policy = view.spec.automatic_repairs_policy
    document = {
        "name": name,
        **describe_service(view),
        "repairAction": policy.repair_action.value,
        "gracePeriod": policy.grace_period,
        "inRepair": [repair.instance for repair in view.repairs if repair.is_open],
    }
    print_document(document, context.output)


def describe_service(view: "ScaleSet") -> dict[str, object]:
    """State and, if suspended, since when and why; the state has Azure's words."""
    service = view.repair_service
    state = service.state(is_enabled=view.spec.automatic_repairs_policy.enabled)
    return {
        "serviceState": state.value,
        "suspendedAt": service.suspended_at,
        "suspendedReason": service.suspended_reason or None,
    }


def suspend(
    name: Name,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Shown wherever the state is.")
    ] = "asked for by a person",
) -> None:
    """Begin no further repair."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.repair_service import suspend as record_suspension

    context = current_context()
    with opened_store(context) as database, database.write() as connection:
        changed = record_suspension(connection, name, reason=reason, now=now())
    _say(name, "Suspended", changed=changed)


def resume(name: Name) -> None:
    """Repair again after a suspension; what failed before counts no more."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.repair_service import resume as record_resumption

    context = current_context()
    with opened_store(context) as database, database.write() as connection:
        changed = record_resumption(connection, name, now=now())
    _say(name, "Running", changed=changed)


def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest that many.")] = 20,
) -> None:
    """List repairs, newest first."""
    from labctl.cli.follow import opened_store
    from labctl.store.repairs import load_repairs
    from labctl.store.scale_sets import get_scale_set

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        found = load_repairs(connection, name, limit=limit)
        if not found:
            get_scale_set(connection, name)
    columns: list[Column | str] = [
        Column(key="id", right=True),
        "instance",
        "action",
        "outcome",
        "beganAt",
        "endedAt",
        "reason",
        "message",
    ]
    print_rows([_describe(each) for each in found], columns, context.output, empty="no repairs")


def _describe(repair: "Repair") -> dict[str, object]:
    return {
        "id": repair.id,
        "instance": repair.instance,
        "action": repair.action.value,
        "outcome": "InRepair" if repair.outcome is None else repair.outcome.value,
        "beganAt": repair.began_at,
        "endedAt": repair.ended_at,
        "reason": repair.reason,
        "message": repair.message,
    }


def _say(name: str, state: str, *, changed: bool) -> None:
    context = current_context()
    if context.output is not Output.TABLE:
        document = {"name": name, "changed": changed, "serviceState": state}
        print_document(document, context.output)
    else:
        print(f"{name}: automatic repairs are {state}" + ("" if changed else " already"))
