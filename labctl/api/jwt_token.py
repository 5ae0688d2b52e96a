"""Access tokens of the shape that Azure's clients expect: JWTs, signed with a key of this lab."""

from datetime import datetime, timedelta
from uuid import uuid4

import jwt

from labctl.api.desk import Desk
from labctl.drivers.signing_key import ensure_signing_key
from labctl.store.tokens import AccessToken

AUDIENCE = "https://management.lab"
_LIFE = timedelta(hours=1)
_ALGORITHM = "HS256"


def issue_jwt(desk: Desk, token: AccessToken, *, now: datetime) -> tuple[str, int]:
    """A JWT that stands for a token for an hour, if that is good for so long; with its seconds."""
    until = now + _LIFE if token.expires_at is None else min(now + _LIFE, token.expires_at)
    claims = {
        "aud": AUDIENCE,
        "iss": _issuer(desk),
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int(until.timestamp()),
        "tid": desk.tenant_id,
        "oid": token.id,
        "sub": token.id,
        "appid": token.id,
        "idtyp": "app",
        "ver": "1.0",
        "jti": str(uuid4()),
    }
    signed = jwt.encode(claims, ensure_signing_key(desk.settings), algorithm=_ALGORITHM)
    return signed, max(0, claims["exp"] - claims["iat"])  # type: ignore[operator]


def find_client_id(desk: Desk, text: str, *, now: datetime) -> str | None:
    """Whose a JWT is, if this lab has signed it and its time is not over."""
    try:
        claims = jwt.decode(
            text,
            ensure_signing_key(desk.settings),
            algorithms=[_ALGORITHM],
            audience=AUDIENCE,
            issuer=_issuer(desk),
            # The times are compared below, with the clock that everything here goes by.
            options={
                "require": ["exp", "aud", "iss"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.InvalidTokenError:
        return None
    ends, whose = claims["exp"], claims.get("appid")
    if not isinstance(ends, int) or now.timestamp() >= ends:
        return None
    return whose if isinstance(whose, str) else None


def _issuer(desk: Desk) -> str:
    return f"labctl:{desk.tenant_id}"
