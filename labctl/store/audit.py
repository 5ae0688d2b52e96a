"""Who asked the API for what, and what became of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from labctl.store.schema import audit


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call that was to change something, or that was refused for who it came from."""

    id: int
    at: datetime
    who: str  # the token's name; empty: nobody that is known
    address: str  # of the client
    method: str
    path: str  # without the query, which may hold anything
    status: int
    code: str  # ARM's code of a refusal; empty: there was none
    request_id: str


def add_audit_entry(connection: Connection, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write down one call; `values` are the fields of AuditEntry without `id`."""
    connection.execute(insert(audit).values(**values))


def load_audit_entries(
    connection: Connection, *, after: int = 0, limit: int | None = None
) -> list[AuditEntry]:
    """Entries after one, oldest first; with `limit` the newest of them."""
    query = select(audit).where(audit.c.id > after).order_by(audit.c.id.desc())
    if limit is not None:
        query = query.limit(limit)
    found = [AuditEntry(**row._mapping) for row in connection.execute(query)]
    return found[::-1]


def remove_audit_entries(connection: Connection, *, before: datetime) -> int:
    """Forget entries that are older; returns how many."""
    return connection.execute(delete(audit).where(audit.c.at < before)).rowcount
