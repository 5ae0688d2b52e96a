"""What the command line shows of one upgrade."""

from typing import TYPE_CHECKING, Any

from labctl.cli.context import Context
from labctl.cli.output import Output, print_document, print_rows
from labctl.cli.upgrade_control import describe_control

if TYPE_CHECKING:
    from labctl.model.upgrade import Upgrade


def print_upgrade(context: Context, upgrade: "Upgrade") -> None:
    """One upgrade with its instances."""
    document = as_document(upgrade)
    if context.output is not Output.TABLE:
        print_document(document, context.output)
        return
    members = document.pop("members")
    print_document({**document, "policy": None, "control": None}, context.output)
    print()
    columns = ["instance", "state", "batch", "from", "downtime", "message"]
    print_rows(members, columns, context.output)


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
