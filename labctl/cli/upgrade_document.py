"""What the command line shows of one upgrade."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from labctl.cli.context import Context
from labctl.cli.output import Output, format_cell, format_moment, print_document, print_rows
from labctl.cli.upgrade_control import describe_control

if TYPE_CHECKING:
    from labctl.controller.waits import Waits
    from labctl.model.upgrade import Upgrade


def print_upgrade(context: Context, upgrade: "Upgrade", waits: "Waits | None" = None) -> None:
    """One upgrade with its instances, and what it waits for where that was asked for."""
    document = as_document(upgrade)
    rows = None if waits is None else describe_waits(upgrade.scale_set, waits)
    if context.output is not Output.TABLE:
        told = document if rows is None else {**document, "waitsFor": rows}
        print_document(told, context.output)
        return
    members = document.pop("members")
    print_document({**document, "policy": None, "control": None}, context.output)
    print()
    pair = ["replacedBy"] if any(member["replacedBy"] for member in members) else []
    columns = ["instance", *pair, "state", "batch", "from", "downtime", "message"]
    print_rows(members, columns, context.output)
    for row in rows or ():
        until = "" if row["until"] is None else f" (until {format_moment(row['until'])})"
        print(f"\nwaits for {row['subject']}: {format_cell(row['reason'])}{until}", end="")
    if rows:
        print()


def describe_waits(name: str, waits: "Waits") -> list[dict[str, Any]]:
    """What a running upgrade waits for, one row for each thing."""
    from labctl.cli.describe import describe_action

    orphaned = f"no process works on it; to go on: labctl upgrade watch {name}, or labctl serve"
    told: list[tuple[str, str, datetime | None]] = [
        *([(name, orphaned, None)] if waits.is_orphaned else []),
        *((action.instance, describe_action(action), None) for action in waits.actions),
        *((hold.subject, hold.reason, hold.until) for hold in waits.holds),
    ]
    return [{"subject": who, "reason": why, "until": until} for who, why, until in told]


def as_document(upgrade: "Upgrade") -> dict[str, Any]:
    """The page's fields, and what the page leaves out."""
    return {
        **as_history(upgrade),
        "id": upgrade.id,
        "scaleSet": upgrade.scale_set,
        "policy": upgrade.policy,
        "restores": upgrade.restores,
        **describe_control(upgrade),
        "batches": upgrade.batches,
        "members": [
            {
                "instance": member.instance,
                "replacedBy": member.replaced_by,
                "state": member.state.value,
                "phase": member.phase,
                "batch": member.batch,
                "from": member.from_version,
                "fromGeneration": member.from_generation,
                "toGeneration": member.to_generation,
                "admittedAt": member.admitted_at,
                "stoppedAt": member.stopped_at,
                "settledAt": member.settled_at,
                "healthyAt": member.healthy_at,
                "downtime": member.healthy_at - member.stopped_at
                if member.healthy_at and member.stopped_at
                else None,
                "message": member.message,
            }
            for member in upgrade.members
        ],
    }


def as_history(upgrade: "Upgrade") -> dict[str, Any]:
    """The page's fields of one attempt."""
    from labctl.model.upgrade import MemberState

    states = [member.state for member in upgrade.members]
    return {
        "runningStatus": {
            "code": upgrade.code.value,
            "startTime": upgrade.started_at,
            "endTime": upgrade.ended_at,
        },
        "progress": upgrade.counts,
        "startedBy": upgrade.started_by.value,
        "purpose": upgrade.purpose.value,
        "modelRevision": upgrade.model_revision,
        "targetImageReference": {"version": upgrade.target_version},
        "rollbackInfo": {
            "successfullyRolledbackInstanceCount": states.count(MemberState.ROLLED_BACK),
            "failedRolledbackInstanceCount": states.count(MemberState.ROLLBACK_FAILED),
        },
        "error": None
        if upgrade.error is None
        else {"code": upgrade.error.code.value, "message": upgrade.error.message},
    }
