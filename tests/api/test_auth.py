"""Who is let in: tokens as they were made, and JWTs that stand for them."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from labctl.api.auth import authenticate
from labctl.api.jwt_token import AUDIENCE, issue_jwt
from labctl.arm.errors import ArmError
from labctl.drivers.signing_key import ensure_signing_key
from labctl.model.access import Scope
from labctl.store.tokens import add_token, load_tokens, revoke_token
from tests.api.serving import TENANT, Api

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def desk(api: Api):
    return api.desk


def make(desk, *, name="ci", lasts=None):
    with desk.database.write() as connection:
        return add_token(
            connection,
            name=name,
            scope=Scope.OPERATE,
            secret=f"labctl_{name}",
            expires_at=None if lasts is None else NOW + lasts,
            now=NOW,
        )


def let_in(desk, secret, now=NOW):
    return authenticate(desk, f"Bearer {secret}", now=now, base_url="https://lab")


def refused(desk, secret, now=NOW):
    with pytest.raises(ArmError) as caught:
        let_in(desk, secret, now)
    assert (caught.value.status, caught.value.code) == (401, "InvalidAuthenticationToken")
    assert caught.value.headers["WWW-Authenticate"] == (
        'Bearer authorization_uri="https://lab/adfs", error="invalid_token"'
    )
    return True


def sign(desk, key=None, algorithm="HS256", **changes):
    """A JWT like ours, with changes."""
    claims = {
        "aud": AUDIENCE,
        "iss": f"labctl:{TENANT}",
        "exp": int((NOW + HOUR).timestamp()),
        "appid": "nobody",
    } | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key or ensure_signing_key(desk.settings), algorithm=algorithm)


def test_a_token_is_good_until_it_expires(desk):
    token = make(desk, lasts=HOUR)
    assert let_in(desk, "labctl_ci", NOW + HOUR - timedelta(seconds=1)) == token.principal
    assert refused(desk, "labctl_ci", NOW + HOUR)


def test_a_jwt_is_good_for_an_hour(desk):
    token = make(desk)
    signed, seconds = issue_jwt(desk, token, now=NOW)
    assert seconds == 3600
    assert let_in(desk, signed, NOW + HOUR - timedelta(seconds=1)) == token.principal
    assert refused(desk, signed, NOW + HOUR)


def test_a_jwt_is_not_good_for_longer_than_its_token(desk):
    signed, seconds = issue_jwt(desk, make(desk, lasts=HOUR / 2), now=NOW)
    assert seconds == 1800
    assert refused(desk, signed, NOW + HOUR / 2)


def test_a_revoked_token_takes_its_jwts_along(desk):
    signed, _ = issue_jwt(desk, make(desk), now=NOW)
    with desk.database.write() as connection:
        revoke_token(connection, "ci", now=NOW)
    assert refused(desk, "labctl_ci")
    assert refused(desk, signed)


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_jwt_that_nobody_here_has_signed_is_refused(desk):
    token = make(desk)
    assert let_in(desk, sign(desk, appid=token.id)) == token.principal
    assert refused(desk, sign(desk, appid=token.id, key="x" * 32))
    assert refused(desk, sign(desk, appid=token.id, algorithm="HS512"))
    unsigned = jwt.encode({"appid": token.id}, None, algorithm="none")
    assert refused(desk, unsigned)
    head, body, _ = sign(desk, appid=token.id).split(".")
    assert refused(desk, f"{head}.{body}.")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://elsewhere"},
        {"aud": None},
        {"iss": "labctl:another"},
        {"iss": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("nan")},
        {"exp": True},
        {"appid": 7},
        {"appid": None},
        {"appid": "nobody"},
    ],
)
def test_a_jwt_with_other_claims_is_refused(desk, changes):
    token = make(desk)
    assert refused(desk, sign(desk, **({"appid": token.id} | changes)))


@pytest.mark.parametrize("text", ["a.b.c", "..", "é.é.é", "labctl_", "x" * 5000, "a b"])
def test_what_is_no_token_is_refused(desk, text):
    assert refused(desk, text)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "labctl_ci"])
def test_without_a_bearer_token_the_client_is_told_where_to_log_in(desk, header):
    with pytest.raises(ArmError) as caught:
        authenticate(desk, header, now=NOW, base_url="https://lab")
    assert caught.value.code == "AuthenticationFailed"
    assert caught.value.headers["WWW-Authenticate"] == (
        'Bearer authorization_uri="https://lab/adfs"'
    )


def test_a_revoked_token_is_refused_by_the_next_request(api: Api):
    assert api.ask("GET", "/metrics", scope=Scope.READ).status_code == 200
    with api.desk.database.write() as connection:
        revoke_token(connection, "read", now=datetime.now(UTC))
    assert api.ask("GET", "/metrics", scope=Scope.READ).status_code == 401


def test_that_a_token_was_used_is_written_down_but_not_for_each_request(api: Api):
    def find_use():
        with api.desk.database.read() as connection:
            return {t.name: t.last_used_at for t in load_tokens(connection)}["read"]

    assert find_use() is None
    assert api.ask("GET", "/metrics", scope=Scope.READ).status_code == 200
    first = find_use()
    while first is None:  # it is written behind the answer
        first = find_use()
    version = api.desk.database.find_version()
    for _ in range(3):
        assert api.ask("GET", "/metrics", scope=Scope.READ).status_code == 200
    assert find_use() == first
    assert api.desk.database.find_version() == version
