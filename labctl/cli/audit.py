"""`labctl audit`: who asked the API for what."""

from typing import Annotated

import typer

from labctl.cli.context import current_context
from labctl.cli.output import Column, print_rows


def audit(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 100,
) -> None:
    """List calls that were to change something, and those that were refused; newest last.

    Entries are kept for 90 days.
    """
    from labctl.cli.follow import opened_store
    from labctl.store.audit import load_audit_entries

    context = current_context()
    with opened_store(context) as database, database.read() as connection:
        entries = load_audit_entries(connection, limit=limit)
    rows = [
        {
            "at": entry.at,
            "who": entry.who,
            "address": entry.address,
            "method": entry.method,
            "path": entry.path,
            "status": entry.status,
            "code": entry.code,
            "requestId": entry.request_id,
        }
        for entry in entries
    ]
    status = Column(key="status", right=True)
    columns: list[Column | str] = ["at", "who", "address", "method", status, "code", "path"]
    print_rows(rows, columns, context.output, empty="nothing was asked yet")
