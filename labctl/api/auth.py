"""Who calls: bearer tokens."""

from datetime import datetime

from labctl.api.desk import Desk
from labctl.arm.errors import ArmError
from labctl.model.access import Principal
from labctl.store.tokens import find_token


def authenticate(desk: Desk, authorization: str | None, *, now: datetime) -> Principal:
    """Whom the header names. Raises ArmError (401)."""
    kind, _, secret = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        raise _refuse("AuthenticationFailed", "The request has no header 'Authorization: Bearer'.")
    with desk.database.read() as connection:
        token = find_token(connection, secret.strip(), now=now)
    if token is None:
        raise _refuse(
            "InvalidAuthenticationToken", "The access token is wrong, expired or revoked."
        )
    return token.principal


def _refuse(code: str, message: str) -> ArmError:
    return ArmError(401, code, message, headers={"WWW-Authenticate": "Bearer"})
