"""The commands for receivers of notifications; the receivers themselves are in the specs."""

from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Output, print_document, print_rows
from labctl.cli.wishes import Name
from labctl.errors import LabError, NotFoundError


def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="SCALE_SET", help="Default: every one.")
    ] = None,
) -> None:
    """List receivers: what each is told, how far, and what keeps it from being told more."""
    from labctl.cli.follow import opened_store
    from labctl.store.receivers import load_receivers
    from labctl.store.scale_sets import get_scale_set

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        if name is not None:
            get_scale_set(connection, name)
        found = load_receivers(connection, name)
    rows = [
        {
            "scaleSet": each.scale_set,
            "name": each.spec.name,
            "host": each.spec.host,
            "events": ", ".join(each.spec.events)
            if context.output is Output.TABLE
            else list(each.spec.events),
            "signed": each.spec.secret_file is not None,
            "toldAt": each.told_at,
            "failures": each.failures,
            "failedAt": each.failed_at,
            "error": each.error or None,
        }
        for each in found
    ]
    columns = ["scaleSet", "name", "host", "events", "signed", "toldAt", "error"]
    print_rows(rows, columns, context.output, empty="no receivers")


def send(
    name: Name,
    receiver: Annotated[
        str | None, typer.Argument(metavar="RECEIVER", help="Default: every one of the set.")
    ] = None,
) -> None:
    """Send one event of type labctl.test now, beside the order of the others."""
    from labctl.cli.follow import opened_store
    from labctl.controller.notifier import send_test
    from labctl.store.receivers import load_receivers
    from labctl.store.scale_sets import get_scale_set

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        get_scale_set(connection, name)
        found = [
            each
            for each in load_receivers(connection, name)
            if receiver is None or each.spec.name == receiver
        ]
    if not found:
        which = "receivers" if receiver is None else f"receiver {receiver!r}"
        raise NotFoundError(f"{name!r} has no {which}", hint=f"run: labctl notify list {name}")
    answers = []
    for each in found:
        try:
            text = f"answered {send_test(each.spec, name)}"
        except LabError as error:
            answers.append({"name": each.spec.name, "told": False, "message": error.brief})
        else:
            answers.append({"name": each.spec.name, "told": True, "message": text})
    if context.output is Output.TABLE:
        for answer in answers:
            print(f"{answer['name']}: {answer['message']}")
    else:
        print_document(answers, context.output)
    failed = [str(answer["name"]) for answer in answers if not answer["told"]]
    if failed:
        raise LabError(
            f"{len(failed)} of {len(answers)} receivers of {name!r} could not be told",
            detail=", ".join(failed),
        )
