"""Access tokens of the API. Only their hashes are kept."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, insert, select, update

from labctl.errors import NotFoundError, RefusedError
from labctl.model.access import Principal, Scope
from labctl.store.schema import access_token


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What is known of a token beside its hash."""

    id: str  # the client id, too
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """May it be used?"""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def principal(self) -> Principal:
        """Whom it names."""
        return Principal(id=self.id, name=self.name, scope=self.scope)


def add_token(
    connection: Connection,
    *,
    name: str,
    scope: Scope,
    secret: str,
    expires_at: datetime | None,
    now: datetime,
) -> AccessToken:
    """Record a token by its hash. Raises RefusedError when a good one has the name."""
    if any(each.name == name and each.is_good(now) for each in load_tokens(connection)):
        raise RefusedError(
            f"there is a token {name!r} already",
            hint=f"choose another name, or run: labctl token revoke {name}",
        )
    identifier = str(uuid4())
    connection.execute(
        insert(access_token).values(
            id=identifier,
            name=name,
            hash=hash_secret(secret),
            scope=scope.value,
            created_at=now,
            expires_at=expires_at,
        )
    )
    return next(each for each in load_tokens(connection) if each.id == identifier)


def load_tokens(connection: Connection) -> list[AccessToken]:
    """All tokens, oldest first; the revoked and expired ones, too."""
    query = select(access_token).order_by(access_token.c.created_at, access_token.c.id)
    return [_read(row) for row in connection.execute(query)]


def find_token(connection: Connection, secret: str, *, now: datetime) -> AccessToken | None:
    """The good token with this secret."""
    # An index finds it by the hash of what was sent, which tells a listener with a watch nothing
    # of a secret; the comparison in constant time is for what the index gave.
    wanted = hash_secret(secret)
    row = connection.execute(select(access_token).where(access_token.c.hash == wanted)).first()
    if row is None or not hmac.compare_digest(row.hash, wanted):
        return None
    token = _read(row)
    return token if token.is_good(now) else None


def find_client(connection: Connection, identifier: str, *, now: datetime) -> AccessToken | None:
    """The good token with this client id."""
    query = select(access_token).where(access_token.c.id == identifier.lower())
    row = connection.execute(query).first()
    token = None if row is None else _read(row)
    return token if token is not None and token.is_good(now) else None


def revoke_token(connection: Connection, name: str, *, now: datetime) -> AccessToken:
    """Let a token be good for nothing from now on. Raises NotFoundError."""
    found = [t for t in load_tokens(connection) if t.name == name and t.revoked_at is None]
    if not found:
        raise NotFoundError(f"there is no token {name!r}", hint="run: labctl token list")
    for token in found:
        connection.execute(
            update(access_token).where(access_token.c.id == token.id).values(revoked_at=now)
        )
    return found[-1]


def is_revoked(connection: Connection, identifier: str) -> bool:
    """Was the token with this id revoked? One that has only expired was good when it was used."""
    query = select(access_token.c.revoked_at).where(access_token.c.id == identifier)
    return connection.execute(query).scalar() is not None


def note_use(connection: Connection, identifier: str, *, now: datetime) -> None:
    """Write down that a token was used."""
    connection.execute(
        update(access_token).where(access_token.c.id == identifier).values(last_used_at=now)
    )


def hash_secret(secret: str) -> str:
    """What is kept of a secret: they are 32 random bytes, so that a plain hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _read(row: Row[Any]) -> AccessToken:
    return AccessToken(
        id=row.id,
        name=row.name,
        scope=Scope(row.scope),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
