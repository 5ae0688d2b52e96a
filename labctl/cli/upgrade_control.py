"""The commands that hold a running upgrade back, and let it go on."""

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document
from labctl.cli.wishes import Name


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


def _say(upgrade_id: int, message: str, *, changed: bool) -> None:
    context = current_context()
    if context.output is Output.TABLE:
        print(f"upgrade {upgrade_id}: {message}")
        return
    document = {"upgrade": upgrade_id, "changed": changed, "message": message}
    print_document(document, context.output)
