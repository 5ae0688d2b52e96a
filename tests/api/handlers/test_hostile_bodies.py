"""Whatever a body holds: an answer below 500, and nothing written where it is a refusal."""

import copy
import json

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from labctl.model.access import Scope
from labctl.store.schema import metadata
from tests.api.labs import (
    GROUP,
    HEALTH,
    SCRIPT,
    add_instances,
    make_body,
    make_ready,
    put_set,
    see,
    step,
)
from tests.api.serving import VERSION, serving

SET = f"{GROUP}/web"
# Each with a body that is taken.
CALLS = (
    ("PUT", SET, make_body(2, extensions=(HEALTH, SCRIPT))),
    ("PUT", f"{GROUP}/new", make_body(1)),
    ("PATCH", SET, {"sku": {"capacity": 2}, "tags": {"a": "b"}}),
    (
        "PUT",
        f"{SET}/virtualMachines/0",
        {"properties": {"protectionPolicy": {"protectFromScaleIn": True}}},
    ),
    ("PUT", f"{SET}/extensions/script", {"properties": SCRIPT["properties"]}),
    ("PATCH", f"{SET}/extensions/script", {"properties": {"forceUpdateTag": "2"}}),
    ("POST", f"{SET}/start", {"instanceIds": ["0"]}),
    ("POST", f"{SET}/powerOff", {"instanceIds": ["0"]}),
    ("POST", f"{SET}/deallocate", {"instanceIds": ["0"], "hibernate": False}),
    ("POST", f"{SET}/restart", {"instanceIds": ["0"]}),
    ("POST", f"{SET}/reimage", {"instanceIds": ["0"], "exactVersion": None}),
    ("POST", f"{SET}/reimageall", {"instanceIds": ["0"]}),
    ("POST", f"{SET}/manualupgrade", {"instanceIds": ["0"]}),
    ("POST", f"{SET}/delete", {"instanceIds": []}),
    ("POST", f"{SET}/osRollingUpgrade", {}),
    ("POST", f"{SET}/extensionRollingUpgrade", {}),
    ("POST", f"{SET}/rollingUpgrades/cancel", {}),
    ("POST", f"{SET}/approveRollingUpgrade", {"instanceIds": ["*"]}),
    (
        "POST",
        f"{SET}/setOrchestrationServiceState",
        {"serviceName": "AutomaticRepairs", "action": "Resume"},
    ),
    ("POST", f"{SET}/virtualMachines/0/reimage", {"tempDisk": False}),
)
_LATER = frozenset({"audit", "access_token", "operation"})  # who asked, and not what is wished
TEXTS = st.one_of(
    st.sampled_from(["", "*", "latest", "\x00", "../x", "PT1S", "\ud83d\ude00", "x" * 3000]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("hostile")) as running:
        put_set(running, extensions=(HEALTH, SCRIPT))
        add_instances(running, 0, 1)
        make_ready(running, 0, 1)
        see(running)
        step(running)
        with requests.Session() as session:
            yield running, session


def find_places(value, path=()):
    """Every place in a document, outermost first."""
    yield path
    entries = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        entries = enumerate(value)
    for key, each in entries:
        yield from find_places(each, (*path, key))


def put_at(document, path, value):
    if not path:
        return value
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@st.composite
def requests_to_send(draw):
    method, path, body = draw(st.sampled_from(CALLS))
    places = list(find_places(body))
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        try:
            body = put_at(body, place, draw(VALUES))
        except (KeyError, IndexError, TypeError):
            continue  # what led there was replaced
    return method, path, body


def dump(desk):
    with desk.database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in metadata.sorted_tables
            if table.name not in _LATER
        }


def ask(api, method, path, body):
    running, session = api
    return session.request(
        method,
        f"{running.url}/subscriptions/{running.desk.subscription_id}/{path}",
        params={"api-version": VERSION},
        headers={
            "Authorization": f"Bearer {running.secrets[Scope.ADMIN]}",
            "Content-Type": "application/json",
        },
        data=json.dumps(body),
        timeout=30,
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests_to_send())
def test_hostile_bodies_are_answered_and_refusals_write_nothing(api, request_to_send):
    method, path, body = request_to_send
    before = dump(api[0].desk)
    answer = ask(api, method, path, body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) >= {"code", "message"}
        assert dump(api[0].desk) == before


def test_there_is_a_hostile_call_for_every_route_of_scale_sets_that_reads_a_body():
    from labctl.api.handlers import actions, instances, rolling_upgrades, scale_sets, set_extensions

    modules = (actions, instances, rolling_upgrades, scale_sets, set_extensions)
    reading = {
        (route.method, route.path.rpartition("/")[2])
        for module in modules
        for route in module.ROUTES
        if route.request is not None
    }
    parameters = {"web": "{name}", "new": "{name}", "script": "{extension}", "0": "{instance}"}
    called = {
        (method, parameters.get(last, last))
        for method, path, _ in CALLS
        for last in [path.rpartition("/")[2]]
    }
    assert reading - called == {("PATCH", "{instance}")}  # the same function as PUT
