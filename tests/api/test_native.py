import asyncio
import json
import threading
from datetime import UTC, datetime

import requests
from prometheus_client.parser import text_string_to_metric_families

from labctl.api.call import Call
from labctl.api.event_stream import _Stream
from labctl.controller.desired import apply_spec
from labctl.model.access import Principal, Scope
from labctl.model.event import EventKind
from labctl.model.spec import ScaleSetSpec
from labctl.store.events import add_event
from labctl.store.tokens import revoke_token
from tests.api.serving import Api

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def _happen(api: Api, *messages: str, scale_set: str = "web") -> None:
    with api.desk.database.write() as connection:
        for message in messages:
            add_event(connection, at=NOW, scale_set=scale_set, kind=EventKind.STEP, message=message)


def _follow(api: Api, *, after: str | None = None, last: str | None = None, query=None):
    headers = {"Authorization": f"Bearer {api.secrets[Scope.READ]}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    params = dict(query or {}) | ({} if after is None else {"after": after})
    answer = requests.get(
        f"{api.url}/labctl/v1/events", headers=headers, params=params, stream=True, timeout=30
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    answer.lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
    return answer


def _read(answer, count: int) -> list[tuple[int, dict]]:
    """The next so many events with their ids."""
    found, number = [], 0
    for line in answer.lines:
        key, _, value = line.partition(": ")
        if key == "id":
            number = int(value)
        elif key == "data":
            found.append((number, json.loads(value)))
            if len(found) == count:
                return found
    return found


def test_health_is_told_to_anybody(api: Api):
    answer = api.ask("GET", "/healthz", scope=None, version=None)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_it_is_ready_once_the_daemon_has_looked_at_the_lab(api: Api):
    answer = api.ask("GET", "/readyz", scope=None, version=None)
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the daemon has not looked at the lab yet"]
    api.desk.board.note_survey()
    answer = api.ask("GET", "/readyz", scope=None, version=None)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_metrics_need_a_token_and_can_be_parsed(api: Api):
    assert api.ask("GET", "/metrics", scope=None, version=None).status_code == 401
    spec = ScaleSetSpec.model_validate(
        {"name": "web", "capacity": 3, "image": {"definition": "tiny"}}
    )
    with api.desk.database.write() as connection:
        apply_spec(connection, spec, now=NOW)
    api.ask("GET", "/made-up-by-a-client")
    answer = api.ask("GET", "/metrics", scope=Scope.READ, version=None)
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["labctl_scale_sets",] == 1
    assert samples["labctl_scale_set_capacity", ("scale_set", "web")] == 3
    health = ("labctl_scale_set_instances_by_health", ("health", "Healthy"), ("scale_set", "web"))
    assert samples[health] == 0
    unknown = (
        "labctl_api_requests_total",
        ("method", "GET"),
        ("route", "unknown"),
        ("status", "404"),
    )
    assert samples[unknown] == 1
    assert families["labctl_api_request_duration_seconds"].type == "histogram"
    assert "secret" not in answer.text


def test_events_come_as_they_happen_and_a_client_that_comes_again_misses_none(api: Api):
    _happen(api, "one", "two")
    with _follow(api, after="0") as answer:
        first = _read(answer, 2)
    assert [event["message"] for _, event in first] == ["one", "two"]
    assert [number for number, _ in first] == [event["id"] for _, event in first]
    _happen(api, "three")  # nobody follows now
    with _follow(api, last=str(first[-1][0]), after="0") as answer:
        assert [event["message"] for _, event in _read(answer, 1)] == ["three"]
        _happen(api, "four")
        assert [event["message"] for _, event in _read(answer, 1)] == ["four"]


def test_without_a_place_only_what_comes_is_told_and_only_of_the_set_that_is_named(api: Api):
    _happen(api, "before")
    with _follow(api, query={"scaleSet": "WEB"}) as answer:
        _happen(api, "other", scale_set="db")
        _happen(api, "after")
        assert [event["message"] for _, event in _read(answer, 1)] == ["after"]


def test_only_to_ask_whether_there_are_events_holds_nothing(api: Api):
    answer = api.ask("HEAD", "/labctl/v1/events", scope=Scope.READ, version=None)
    assert (answer.status_code, api.desk.newsroom.followers) == (200, 0)


def test_a_place_that_is_none_is_refused(api: Api):
    query = {"after": "-1"}
    answer = api.ask("GET", "/labctl/v1/events", scope=Scope.READ, version=None, query=query)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "after")


def test_fifty_idle_clients_hold_no_threads_and_end_when_the_server_stops(api: Api):
    answers = [_follow(api) for _ in range(50)]
    api.ask("GET", "/healthz", scope=None, version=None)
    assert threading.active_count() < 50
    assert api.desk.newsroom.followers == 50
    api.desk.stop.set()
    assert [_read(answer, 1) for answer in answers] == [[]] * 50
    assert api.desk.newsroom.followers == 0


def test_a_client_that_is_gone_is_forgotten(api: Api):
    _follow(api).close()
    while api.desk.newsroom.followers:
        _happen(api, "something")


def test_who_has_no_token_any_more_is_told_no_more(api: Api, monkeypatch):
    monkeypatch.setattr("labctl.api.event_stream._HEARTBEAT", 0.01)
    with _follow(api) as answer:
        with api.desk.database.write() as connection:
            revoke_token(connection, "read", now=NOW)
        assert _read(answer, 1) == []


def test_who_has_no_token_any_more_is_told_no_more_however_much_happens(api: Api, monkeypatch):
    monkeypatch.setattr("labctl.api.event_stream._HEARTBEAT", 0.0)
    _happen(api, *map(str, range(1000)))
    call = Call(
        method="GET",
        path="/labctl/v1/events",
        parameters={},
        query={},
        headers={"authorization": f"Bearer {api.secrets[Scope.READ]}"},
        content=b"",
        base_url=api.url,
        principal=Principal(id="1", name="read", scope=Scope.READ),
        now=NOW,
        request_id="1",
    )

    async def follow() -> list[str]:
        await api.desk.newsroom.enter(api.desk.database, api.desk.stop)
        found = []
        async for piece in _Stream(api.desk, call, "", 0):
            found.append(piece)
            if len(found) == 1:
                with api.desk.database.write() as connection:
                    revoke_token(connection, "read", now=NOW)
            if len(found) == 900:
                break
        return found

    assert len(asyncio.run(follow())) == 1
