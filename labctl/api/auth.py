"""Who calls: bearer tokens, as they were made or as a JWT that our login issued for one."""

from datetime import datetime

from starlette.concurrency import run_in_threadpool

from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.jwt_token import find_client_id
from labctl.arm.errors import ArmError
from labctl.controller.clock import now as read_clock
from labctl.errors import LabError
from labctl.model.access import Principal
from labctl.store.tokens import AccessToken, find_client, find_token

_LONGEST = 4096  # characters of a header; ours have 600 at most


def authenticate(
    desk: Desk, authorization: str | None, *, now: datetime, base_url: str = ""
) -> Principal:
    """Whom the header names. Raises ArmError (401) that tells where to log in."""
    kind, _, secret = (authorization or "").partition(" ")
    secret = secret.strip()
    if kind.lower() != "bearer" or not secret:
        raise _refuse(
            base_url,
            "AuthenticationFailed",
            "The request has no header 'Authorization: Bearer'. Make a token with: labctl token "
            "create NAME --scope read|operate|admin",
        )
    token = None if len(secret) > _LONGEST else _find(desk, secret, now)
    if token is None:
        raise _refuse(
            base_url,
            "InvalidAuthenticationToken",
            "The access token is wrong, expired or revoked. labctl token list, on the lab's host, "
            "tells which are good; labctl token create makes another.",
            error="invalid_token",
        )
    return token.principal


async def is_still_allowed(desk: Desk, call: Call) -> bool:
    """Has the token of a call that goes on and on neither expired nor been revoked meanwhile?"""
    given = call.headers.get("authorization")
    try:
        await run_in_threadpool(authenticate, desk, given, now=read_clock(), base_url=call.base_url)
    except (ArmError, LabError):
        return False
    return True


def _find(desk: Desk, secret: str, now: datetime) -> AccessToken | None:
    if secret.count(".") == 2:
        client = find_client_id(desk, secret, now=now)
        if client is None:
            return None
        with desk.database.read() as connection:
            return find_client(connection, client, now=now)
    with desk.database.read() as connection:
        return find_token(connection, secret, now=now)


def _refuse(base_url: str, code: str, message: str, *, error: str = "") -> ArmError:
    words = [f'authorization_uri="{base_url}/adfs"'] if base_url else []
    words += [f'error="{error}"'] if error else []
    header = f"Bearer {', '.join(words)}".strip()
    return ArmError(401, code, message, headers={"WWW-Authenticate": header})
