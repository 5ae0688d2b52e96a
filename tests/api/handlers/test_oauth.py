"""Logging in as Azure's clients do, by raw requests as MSAL sends them."""

from datetime import UTC, datetime

import pytest
import requests

from labctl.model.access import Scope
from labctl.store.audit import load_audit_entries
from labctl.store.tokens import load_tokens, revoke_token
from tests.api.serving import TENANT, Api

AUTHORITIES = ("adfs", TENANT)


def find_client(api, name="operate"):
    with api.desk.database.read() as connection:
        return next(t.id for t in load_tokens(connection) if t.name == name)


def discover(api, authority):
    version = "" if authority == "adfs" else "v2.0/"
    url = f"{api.url}/{authority}/{version}.well-known/openid-configuration"
    return requests.get(url, timeout=10).json()


def log_in(api, url, **changes):
    """The form of MSAL, with changes; None takes a field away."""
    form = {
        "client_id": find_client(api),
        "client_secret": api.secrets[Scope.OPERATE],
        "grant_type": "client_credentials",
        "client_info": "1",
        "claims": '{"access_token": {"xms_cc": {"values": ["CP1"]}}}',
        "scope": "https://management.lab/.default",
    } | changes
    return requests.post(url, data=form, timeout=10)


@pytest.mark.parametrize("authority", AUTHORITIES)
def test_a_client_finds_the_login_and_gets_a_token_that_is_good(api: Api, authority):
    found = discover(api, authority)
    # MSAL wants the issuer to be of the authority's host.
    assert found["issuer"].startswith(f"{api.url}/{authority}")
    answer = log_in(api, found["token_endpoint"])
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert requests.get(f"{api.url}/metrics", headers=headers, timeout=10).status_code == 200
    # It has the scope of the token that it stands for, and its name in the log.
    missing = requests.put(f"{api.url}/nowhere", headers=headers, timeout=10)
    assert missing.status_code == 404
    with api.desk.database.read() as connection:
        entries = load_audit_entries(connection)
    assert [(e.who, e.method, e.status) for e in entries] == [
        ("operate", "POST", 200),
        ("operate", "PUT", 404),
    ]


@pytest.mark.parametrize("path", ["/adfs/adfs/v2.0/", "/adfs/adfs/", "/common/v2.0/"])
def test_the_probes_of_clients_are_answered(api: Api, path):
    url = f"{api.url}{path}.well-known/openid-configuration"
    assert requests.get(url, timeout=10).json()["token_endpoint"].startswith(api.url)


def test_instance_discovery_names_this_host(api: Api):
    url = f"{api.url}/common/discovery/instance?api-version=1.1&authorization_endpoint=x"
    found = requests.get(url, timeout=10).json()
    assert api.url.endswith(found["metadata"][0]["aliases"][0])
    assert requests.get(found["tenant_discovery_endpoint"], timeout=10).status_code == 200


def test_another_tenant_is_told_which_one_this_is(api: Api):
    url = f"{api.url}/{'0' * 8}/v2.0/.well-known/openid-configuration"
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 400
    assert TENANT in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": "wrong"},
        {"client_secret": "secret-of-admin"},  # that of another client
        {"client_id": "wrong"},
        {"client_id": None},
        {"client_secret": None},
        {"client_id": "é", "client_secret": "é"},
    ],
)
def test_a_wrong_secret_is_told_in_the_shape_of_oauth_and_written_down(api: Api, changes):
    answer = log_in(api, f"{api.url}/adfs/oauth2/token", **changes)
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert "labctl token list" in answer.json()["error_description"]
    with api.desk.database.read() as connection:
        (entry,) = load_audit_entries(connection)
    assert (entry.who, entry.status, entry.code) == ("", 401, "invalid_client")


def test_a_revoked_token_cannot_log_in(api: Api):
    client = find_client(api)
    with api.desk.database.write() as connection:
        revoke_token(connection, "operate", now=datetime.now(UTC))
    answer = log_in(api, f"{api.url}/adfs/oauth2/token", client_id=client)
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("content", "kind", "error"),
    [
        (b"grant_type=password&username=a", None, "unsupported_grant_type"),
        (b"", None, "unsupported_grant_type"),
        (b"grant_type=client_credentials&client_id=a&client_id=b", None, "invalid_request"),
        (b"&".join(b"a%d=1" % i for i in range(50)), None, "invalid_request"),
        (b"client_id=%ff%fe", None, "invalid_request"),
        (b"client_id=\xff", None, "invalid_request"),
        (b"{}", "application/json", "invalid_request"),
        (b"{}", "", "invalid_request"),
    ],
)
def test_what_is_no_login_is_refused(api: Api, content, kind, error):
    kind = "application/x-www-form-urlencoded; charset=utf-8" if kind is None else kind
    answer = requests.post(
        f"{api.url}/adfs/oauth2/token", data=content, headers={"Content-Type": kind}, timeout=10
    )
    assert answer.status_code == 400
    assert answer.json()["error"] == error


def test_a_form_has_a_limit(api: Api):
    answer = log_in(api, f"{api.url}/adfs/oauth2/token", client_secret="x" * 20_000)
    assert answer.status_code == 413


def test_who_is_wrong_again_and_again_is_told_to_wait_but_the_right_one_gets_in(api: Api):
    url = f"{api.url}/adfs/oauth2/token"
    codes = [log_in(api, url, client_secret="wrong").status_code for _ in range(25)]
    assert codes == [401] * 20 + [429] * 5
    last = log_in(api, url, client_secret="wrong")
    assert last.json()["error"] == "temporarily_unavailable"
    assert last.headers["Retry-After"] == "60"
    refused = requests.get(f"{api.url}/metrics", timeout=10)
    assert refused.json()["error"]["code"] == "TooManyRequests"
    assert log_in(api, url).status_code == 200
    with api.desk.database.read() as connection:
        entries = load_audit_entries(connection)
    # One line stands for all that were too many.
    assert [e.code for e in entries] == ["invalid_client"] * 20 + ["TooManyRequests", ""]
