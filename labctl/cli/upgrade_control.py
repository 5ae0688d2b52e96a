"""The commands that hold a running upgrade back, and let it go on."""

from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document
from labctl.cli.wishes import Name

if TYPE_CHECKING:
    from labctl.model.control import UpgradeControl
    from labctl.model.upgrade import Upgrade


def pause(name: Name) -> None:
    """Begin no further batch until `upgrade resume`; the present batch finishes."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.upgrade_control import pause_upgrade

    with opened_store(current_context()) as database, database.write() as connection:
        upgrade_id, changed = pause_upgrade(connection, name, now=now())
    _say(
        upgrade_id,
        "pauses at the end of its batch" if changed else "is paused already",
        changed=changed,
    )


def resume(name: Name) -> None:
    """Let a paused upgrade begin its next batch; the process that works on it goes on."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.upgrade_control import resume_upgrade

    with opened_store(current_context()) as database, database.write() as connection:
        upgrade_id, changed = resume_upgrade(connection, name, now=now())
    _say(
        upgrade_id,
        f"goes on; to follow it: labctl upgrade watch {name}" if changed else "is not paused",
        changed=changed,
    )


def approve(name: Name) -> None:
    """Let the batch begin that waits for approval."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.upgrade_control import approve_batch

    with opened_store(current_context()) as database, database.write() as connection:
        upgrade_id, batch = approve_batch(connection, name, now=now())
    _say(upgrade_id, f"batch {batch} is approved", changed=True)


def reject(
    name: Name,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Shown wherever the upgrade is.")
    ] = "",
) -> None:
    """End the upgrade instead of beginning the batch that waits for approval."""
    from labctl.cli.follow import opened_store
    from labctl.controller.clock import now
    from labctl.controller.upgrade_control import reject_batch

    with opened_store(current_context()) as database, database.write() as connection:
        upgrade_id = reject_batch(connection, name, reason=reason, now=now())
    _say(upgrade_id, "is rejected and ends as Cancelled", changed=True)


def describe_control(upgrade: "Upgrade") -> dict[str, object]:
    """What holds an upgrade back, for its document."""
    from labctl.planner import find_approval

    approval, asked_at = find_approval(upgrade), upgrade.approval_asked_at
    is_asking = approval is not None and asked_at is not None and not upgrade.code.is_final
    return {
        "control": _mask(upgrade.control),
        "pausedAt": upgrade.paused_at,
        "ignoresWindows": upgrade.ignores_windows,
        "waitsForApproval": {
            "batch": upgrade.batches + 1,
            "askedAt": asked_at,
            "until": asked_at + approval.timeout,
            "onTimeout": approval.on_timeout.value,
        }
        if is_asking and approval is not None and asked_at is not None
        else None,
        "endReason": upgrade.end_reason or None,
    }


def _mask(control: "UpgradeControl") -> "UpgradeControl":
    approval = control.approval
    if approval is None or approval.webhook is None:
        return control
    shown = approval.model_copy(update={"webhook": approval.webhook.masked})
    return control.model_copy(update={"approval": shown})


def _say(upgrade_id: int, message: str, *, changed: bool) -> None:
    context = current_context()
    if context.output is Output.TABLE:
        print(f"upgrade {upgrade_id}: {message}")
        return
    document = {"upgrade": upgrade_id, "changed": changed, "message": message}
    print_document(document, context.output)
