from datetime import UTC, datetime, timedelta

import pytest
import requests
from requests.adapters import HTTPAdapter

from labctl.api.guard import REFUSALS_NOTED
from labctl.model.access import Scope
from labctl.store.audit import add_audit_entry, load_audit_entries
from tests.api.serving import Api


def test_without_a_token_nothing_is_told(api: Api):
    answer = api.ask("GET", "/nowhere", scope=None)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == f'Bearer authorization_uri="{api.url}/adfs"'
    assert answer.json()["error"]["code"] == "AuthenticationFailed"


def test_a_wrong_token_is_refused_and_written_down(api: Api):
    headers = {"Authorization": "Bearer wrong"}
    answer = requests.get(f"{api.url}/nowhere", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"
    with api.desk.database.read() as connection:
        entries = load_audit_entries(connection)
    assert [(e.who, e.method, e.path, e.status, e.code) for e in entries] == [
        ("", "GET", "/nowhere", 401, "InvalidAuthenticationToken")
    ]
    assert entries[0].request_id == answer.headers["x-ms-request-id"]


def test_an_unknown_path_is_an_arm_error(api: Api):
    answer = api.ask("GET", "/nowhere", scope=Scope.READ)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "InvalidResourceType"


def test_what_was_written_down_long_ago_is_removed_now_and_then(api: Api):
    now = datetime.now(UTC)
    with api.desk.database.write() as connection:
        for days in (91, 89):
            add_audit_entry(
                connection,
                at=now - timedelta(days=days),
                who="ci",
                address="127.0.0.1",
                method="PUT",
                path=f"/{days}",
                status=200,
                code="",
                request_id="",
            )
    assert api.ask("DELETE", "/nowhere").status_code == 404
    with api.desk.database.read() as connection:
        assert [e.path for e in load_audit_entries(connection)] == ["/89", "/nowhere"]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/adfs/oauth2/token", {}),
        ("DELETE", "/healthz", {}),
        ("PUT", "/healthz", {"Host": "no name"}),
    ],
)
def test_strangers_cannot_fill_the_log_with_what_is_no_login(api: Api, method, path, headers):
    answers = [
        requests.request(method, f"{api.url}{path}", headers=headers, timeout=10) for _ in range(30)
    ]
    assert {answer.status_code for answer in answers} <= {400, 401, 405}
    with api.desk.database.read() as connection:
        assert len(load_audit_entries(connection)) == REFUSALS_NOTED


def test_strangers_of_many_addresses_cannot_fill_the_log(api: Api, monkeypatch):
    monkeypatch.setattr("labctl.api.app.REFUSALS_NOTED_OF_ALL", 2)
    for number in range(1, 5):
        with requests.Session() as session:
            session.mount("http://", _From(f"127.0.0.{number}"))
            assert session.get(f"{api.url}/nowhere", timeout=10).status_code == 401
    with api.desk.database.read() as connection:
        assert len(load_audit_entries(connection)) == 2


class _From(HTTPAdapter):
    """Asks from another address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **named):
        super().init_poolmanager(*arguments, source_address=(self._address, 0), **named)


def test_a_token_cannot_fill_the_log_with_what_it_may_not_do(api: Api, monkeypatch):
    monkeypatch.setattr("labctl.api.app.FAULTS_NOTED", 3)
    for _ in range(5):
        assert api.ask("PUT", "resourceGroups/rg1", body={}, scope=Scope.READ).status_code == 403
    body = {"location": "local"}
    assert api.ask("PUT", "resourceGroups/rg1", body=body).status_code == 201
    with api.desk.database.read() as connection:
        assert [e.status for e in load_audit_entries(connection)] == [403, 403, 403, 201]
