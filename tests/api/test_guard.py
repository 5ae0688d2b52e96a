"""Bounds: names of hosts that links are made from, and how often callers may be wrong."""

from datetime import UTC, datetime, timedelta

import pytest
import requests

from labctl.api.guard import FailedLogins, wants_strict_transport
from labctl.model.access import Scope
from tests.api.serving import Api

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "host",
    ['lab"onmouse', "lab<script>", "a/b", "user@lab", "lab:port", "lab\\x", "[lab]", "é", ""],
)
def test_a_host_that_is_no_name_gets_into_no_link(api: Api, host):
    headers = {"Host": host.encode()}
    answer = requests.get(f"{api.url}/metadata/endpoints", headers=headers, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "InvalidHostHeader"


@pytest.mark.parametrize("host", ["lab7.example.org", "LAB:8443", "[::1]:8443", "192.0.2.7"])
def test_links_begin_with_the_host_that_was_asked(api: Api, host):
    answer = requests.get(f"{api.url}/metadata/endpoints", headers={"Host": host}, timeout=10)
    assert answer.json()["galleryEndpoint"] == f"http://{host}/"


def test_browsers_are_told_to_stay_with_https_where_nothing_else_suffers():
    assert wants_strict_transport("https://lab7.example.org:8443")
    for url in ("https://localhost:8443", "https://127.0.0.1", "https://[::1]:1", "http://lab7"):
        assert not wants_strict_transport(url)


def test_refusals_are_counted_by_address_and_minute():
    failed = FailedLogins()
    assert [failed.note("a", NOW) for _ in range(22)] == [0] * 20 + [1, 2]
    assert failed.note("b", NOW) == 0
    assert failed.note("a", NOW + timedelta(minutes=1)) == 0
    # A clock that was set back must not refuse for ever.
    assert failed.note("a", NOW - timedelta(days=1)) == 0


def test_addresses_that_were_refused_long_ago_are_forgotten():
    failed = FailedLogins()
    for _ in range(21):
        failed.note("first", NOW)
    for number in range(1024):
        failed.note(str(number), NOW)
    assert failed.note("first", NOW) == 0


def test_head_tells_the_same_without_a_body(api: Api):
    answer = api.ask("HEAD", "/healthz", scope=None)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(api.ask("GET", "/healthz").content))


def test_options_tells_what_can_be_asked(api: Api):
    answer = api.ask("OPTIONS", "/adfs/oauth2/token", scope=None)
    assert (answer.status_code, answer.headers["Allow"]) == (204, "OPTIONS, POST")
    assert api.ask("OPTIONS", "/metrics").headers["Allow"] == "GET, HEAD, OPTIONS"
    assert api.ask("OPTIONS", "/metrics", scope=None).status_code == 401
    assert api.ask("OPTIONS", "/nowhere", scope=Scope.READ).status_code == 404


def test_a_wrong_method_names_the_right_ones(api: Api):
    answer = api.ask("DELETE", "/metrics")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
