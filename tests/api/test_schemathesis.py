"""What the OpenAPI document promises, asked with what nobody in his right mind would send.

`HYPOTHESIS_PROFILE=nightly make check` asks a hundred times as much, at random.
"""

import http.client
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from labctl.api.route import Route
from labctl.api.routes import make_routes
from labctl.model.access import Scope
from tests.api.documents import CUSTOM_DATA, make_scale_set
from tests.api.serving import SUBSCRIPTION, Api, serving

Json = Any  # what json.loads gives

SECONDS = 20  # an answer that takes longer is a hang
EXAMPLES = max(3, settings().max_examples // 30)  # of each call
IS_PATIENT = settings().max_examples > 100
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Names that lead somewhere, so that not everything ends at "there is no such resource".
KNOWN = (
    "web",
    "labctl",
    "rg1",
    "tiny",
    "1.0.0",
    "0",
    "latest",
    "local",
    "default",
    "Microsoft.Compute",
)
NOT_STATE = {  # who asked and when is written down of refused requests, too
    "audit": None,
    "sqlite_sequence": None,
    "access_token": "last_used_at",
}
HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", " ", "0", "-1", "latest", "../..", "P", "PT1H", "\x00", "é" * 300, "1.0.0"]
    ),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.lists(st.none() | st.integers() | st.just({}), max_size=3),
    st.dictionaries(
        st.sampled_from(["id", "name", "properties", "value", ""]), st.none() | st.text()
    ),
    st.just([[[[[[[[[[]]]]]]]]]]),
    st.integers(min_value=2**63, max_value=2**70),
)
load_all_checks()


def is_plain(route: Route) -> bool:
    """Streams of events do not end by themselves."""
    return route.media_type != "text/event-stream"


def pick(routes: Iterable[Route]) -> list[Route]:
    """One of those that differ in the kind of network resource only, unless there is time."""
    picked: dict[tuple[str, str], Route] = {}
    for route in routes:
        kind = re.sub(r"(Microsoft\.Network)/\w+", r"\1/*", route.path)
        picked.setdefault((route.method, route.path if IS_PATIENT else kind), route)
    return list(picked.values())


ROUTES = [route for route in make_routes().all if is_plain(route)]
quietly = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[Api]:
    """One API for all: what calls leave behind is where the next ones begin."""
    with serving(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def schema(api):
    document = api.ask("GET", "/labctl/v1/openapi.json", version=None)
    assert document.status_code == 200
    found = schemathesis.openapi.from_dict(document.json())
    found.config.base_url = api.url
    return found


@pytest.fixture(scope="module")
def session(api) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.headers["Authorization"] = f"Bearer {api.secrets[Scope.ADMIN]}"
        yield made


@pytest.fixture
def web(api) -> None:
    """A scale set to ask for, whatever was asked before."""
    if api.ask("GET", PATH).status_code != 200:
        assert api.ask("PUT", "resourceGroups/rg1", body={"location": "local"}).ok
        assert api.ask("PUT", PATH, body=make_scale_set()).ok


PATH = "resourceGroups/rg1/providers/Microsoft.Compute/virtualMachineScaleSets/web"


def dump_state(api: Api) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that the store holds, save for who asked when."""
    with closing(sqlite3.connect(f"file:{api.desk.database.path}?mode=ro", uri=True)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        found = {}
        for (table,) in tables:
            hidden = NOT_STATE.get(table, "")
            if hidden is None:
                continue
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            places = [n for n, name in enumerate(names) if name != hidden]
            found[table] = [tuple(row[n] for n in places) for row in cursor]
        return found


def name_route(route: Route) -> str:
    return f"{route.method} {route.path}"


def name_case(value: Route | GenerationMode) -> str:
    return name_route(value) if isinstance(value, Route) else value.value


def can_be_wrong(route: Route) -> bool:
    """Is there anything that a client could send otherwise than told?"""
    return route.needs_version or bool(route.request or route.query)


CASES = [
    (route, mode)
    for route in pick(ROUTES)
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or (can_be_wrong(route) and (IS_PATIENT or route.request))
]


def check_answer(case, answer) -> None:
    documented = set(case.operation.definition.raw["responses"])
    assert answer.status_code < 500 or str(answer.status_code) in documented, answer.text
    case.validate_response(answer, checks=CHECKS)


def choose(data, case) -> None:
    """Names that lead somewhere in most of the places."""
    for name in case.path_parameters or {}:
        if name.lower().startswith("subscription"):
            case.path_parameters[name] = SUBSCRIPTION
        elif data.draw(st.integers(0, 3)):
            case.path_parameters[name] = data.draw(st.sampled_from(KNOWN))


@pytest.mark.parametrize(("route", "mode"), CASES, ids=name_case)
def test_whatever_is_sent_the_answer_is_as_documented_and_a_refusal_changes_nothing(
    api, schema, session, web, route, mode
):
    operation = schema["/" + route.path.strip("/")][route.method]

    @quietly
    @given(st.data())
    def ask(data):
        case = data.draw(operation.as_strategy(generation_mode=mode))
        choose(data, case)
        before = dump_state(api)
        answer = case.call(session=session, timeout=SECONDS)
        check_answer(case, answer)
        if answer.status_code >= 400:
            assert dump_state(api) == before, f"{case.as_curl_command()}\n{answer.text}"

    ask()


def ask_without_token(api: Api, route: Route, source: str) -> tuple[int, Json]:
    """From an address of its own: who fails often is not listened to for a while."""
    connection = http.client.HTTPConnection(
        api.url.removeprefix("http://"), source_address=(source, 0)
    )
    path = "/" + route.path.strip("/").replace("{subscription}", SUBSCRIPTION)
    with closing(connection):
        connection.request(route.method, f"{path}?api-version=2024-11-01", body=b"{}")
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None


def test_without_a_token_only_what_is_for_everybody_is_answered(api, web):
    before = dump_state(api)
    asked = [route for route in ROUTES if route.scope is not None]
    for number, route in enumerate(asked):
        status, answer = ask_without_token(api, route, f"127.0.1.{1 + number // 15}")
        assert status == 401, name_route(route)
        if route.method != "HEAD":
            assert answer["error"]["code"] == "AuthenticationFailed", name_route(route)
    assert dump_state(api) == before
    is_for_login = re.compile(
        r"/(metadata/endpoints|common/discovery/instance|healthz|readyz)|.*/oauth2/.*|.*/openid-configuration"
    )
    for route in ROUTES:
        assert route.scope is not None or is_for_login.fullmatch(route.path), name_route(route)


def list_places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to everything in a document."""
    if path:
        yield path
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from list_places(each, (*path, key))
    for number, each in enumerate(value) if isinstance(value, list) else ():
        yield from list_places(each, (*path, number))


def replace(document: Json, path: tuple[str | int, ...], value: Json) -> Json:
    """The document with something else at one place."""
    changed = json.loads(json.dumps(document))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_good_scale_set_with_one_thing_wrong_is_taken_or_refused_as_a_whole(
    api, session, web, method
):
    good = make_scale_set()
    places = sorted(list_places(good), key=str)

    @settings(quietly, max_examples=EXAMPLES * 20)
    @given(st.sampled_from(places), HOSTILE)
    def ask(path, value):
        before = dump_state(api)
        answer = api.ask(method, PATH, body=replace(good, path, value))
        assert answer.status_code < 500, f"{path} = {value!r}: {answer.text}"
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["code"], path
            assert error["message"], path
            assert dump_state(api) == before, f"{path} = {value!r}: {answer.text}"
        else:
            assert CUSTOM_DATA not in answer.text

    ask()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"location": NaN}',
        b'{"location": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"location": 1e400}',
        b'{"properties": {"properties": ' + b"1" * 5000 + b"}}",
    ],
    ids=lambda content: repr(content[:20]),
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_body_that_is_no_object_of_json_is_refused(api, session, web, method, content):
    before = dump_state(api)
    answer = session.request(
        method,
        f"{api.url}/subscriptions/{SUBSCRIPTION}/{PATH}",
        params={"api-version": "2024-11-01"},
        data=content,
        headers={"Content-Type": "application/json"},
        timeout=SECONDS,
    )
    assert answer.status_code in {400, 413}, answer.text
    assert answer.json()["error"]["code"]
    assert dump_state(api) == before
