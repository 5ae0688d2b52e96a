import requests

from labctl.model.access import Scope
from labctl.store.audit import load_audit_entries
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
