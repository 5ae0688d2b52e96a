"""Receivers on loopback, and a real store."""

import socket
from datetime import timedelta
from types import SimpleNamespace

import pytest

from labctl.controller import notifier
from labctl.controller.desired import apply_spec, delete_scale_set
from labctl.controller.lock import try_lock
from labctl.controller.notifier import Notifier, notifying, send_test
from labctl.errors import HostError, LabError
from labctl.model.event import EventKind
from labctl.model.notification import Notification, Topic, TopicFilter
from labctl.store.events import add_event
from labctl.store.receivers import load_receivers, save_receivers
from labctl.store.scale_sets import remove_scale_set
from tests.controller.test_record import NOW, spec
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.drivers.webhook_server import WebhookServer

SOON = timedelta(seconds=10)  # a test that waits so long has failed


@pytest.fixture
def server():
    made = WebhookServer()
    yield made
    made.stop()


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(notifier, "_FIRST_PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr(notifier, "_LOOK", timedelta(milliseconds=10))
    return SimpleNamespace(locks_dir=tmp_path / "locks")


def receiver(server, name="nightly", events=("batch", "failure")):
    events = tuple(TopicFilter(each) for each in events)
    return Notification(name=name, url=server.url, allow_http=True, events=events)


def listen(web, *receivers):
    with web.write() as connection:
        save_receivers(connection, "web", receivers)


def happen(web, *things):
    with web.write() as connection:
        for message, topic in things:
            add_event(
                connection,
                at=NOW,
                scale_set="web",
                kind=EventKind.FAILURE if topic is None else EventKind.DECISION,
                message=message,
                topic=topic,
            )


def tell(settings, web):
    made = Notifier(settings, web)
    made.start()
    made.finish(SOON)


def load(web):
    with web.read() as connection:
        return load_receivers(connection)


def test_a_receiver_is_told_what_it_wants_in_order_and_once(settings, web, server):
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED), ("health", Topic.HEALTH), ("panic", None))
    tell(settings, web)
    tell(settings, web)
    assert [d["data"]["message"] for d in server.documents] == ["batch 1", "panic"]
    first = server.documents[0]
    assert (first["specversion"], first["type"]) == ("1.0", "labctl.batch.started")
    assert first["source"].endswith(":web")
    assert len({each["id"] for each in server.documents}) == 2
    assert server.taken[0][1]["Content-Type"].startswith("application/cloudevents+json")


def test_nothing_from_before_the_receiver_is_told(settings, web, server):
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    listen(web, receiver(server))
    listen(web, receiver(server, events=("all",)))  # changed, and still where it was
    happen(web, ("batch 2", Topic.BATCH_STARTED))
    tell(settings, web)
    assert [d["data"]["message"] for d in server.documents] == ["batch 2"]


def test_what_fails_comes_first_when_the_receiver_is_back(settings, web, server):
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED), ("batch 2", Topic.BATCH_STARTED))
    server.default = (500, b"", {})
    made = Notifier(settings, web)
    made.start()
    server.await_taken(2)
    assert server.documents[0] == server.documents[1]  # the same id: to be told from two
    server.default = (200, b"", {})
    made.finish(SOON)
    while load(web)[0].error:  # one more try, by the next command
        tell(settings, web)
    told = [d["data"]["message"] for d in server.documents]
    assert told == ["batch 1"] * told.count("batch 1") + ["batch 2"]


def test_a_receiver_that_is_down_is_on_record_and_keeps_nobody_waiting(settings, web, server):
    other = WebhookServer()
    other.stop()
    listen(web, receiver(other, "down"), receiver(server, "up"))
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    tell(settings, web)
    down, up = load(web)
    assert down.error == f"127.0.0.1:{other.port} is not reachable"
    assert down.failures >= 1
    assert (up.error, up.told_at is not None) == ("", True)
    assert [d["data"]["message"] for d in server.documents] == ["batch 1"]


def test_whoever_holds_the_lock_tells_and_the_others_do_not(settings, web, server):
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    with try_lock(settings, "_notify"):
        made = Notifier(settings, web)
        made.start()
        made.finish(timedelta(milliseconds=100))
    assert server.taken == []
    with notifying(settings, web):
        pass
    assert len(server.taken) == 1


def test_the_end_of_a_scale_set_is_told_and_then_the_receiver_forgotten(settings, web, server):
    wish = {"name": "nightly", "url": server.url, "allowHttp": True, "events": ["request", "step"]}
    with web.write() as connection:
        apply_spec(connection, spec(notifications=[wish]), now=NOW)
        delete_scale_set(connection, "web", now=NOW)
        remove_scale_set(connection, "web")
    happen(web, ("scale set deleted", Topic.STEP))
    tell(settings, web)
    assert [d["data"]["message"] for d in server.documents][-1] == "scale set deleted"
    tell(settings, web)
    assert load(web) == []


def test_who_is_taken_out_of_the_spec_is_told_no_more(settings, web, server):
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    listen(web)
    tell(settings, web)
    assert server.taken == []


def test_without_receivers_no_thread_is_started(settings, web):
    with notifying(settings, web):
        assert not settings.locks_dir.exists()


def test_a_test_is_sent_beside_the_others_and_tells_how_it_went(server):
    assert send_test(receiver(server), "web") == 200
    assert server.documents[0]["type"] == "labctl.test"
    server.default = (404, b"", {})
    with pytest.raises(LabError, match="answered 404"):
        send_test(receiver(server), "web")


def test_what_nobody_wants_is_not_looked_at_for_ever(settings, web, server, monkeypatch):
    monkeypatch.setattr(notifier, "_PASSED_AT_MOST", 5)
    listen(web, receiver(server))
    before = load(web)[0].told
    happen(web, *[("health", Topic.HEALTH)] * 10)
    tell(settings, web)
    assert load(web)[0].told == before + 10
    assert server.taken == []


def test_a_store_that_is_away_for_a_moment_ends_nothing(settings, web, server, monkeypatch):
    monkeypatch.setattr(notifier, "_REST", timedelta(milliseconds=10))
    faults = [HostError("the store cannot be used"), RuntimeError("a fault of labctl")]

    def fail_first(*args):
        if faults:
            raise faults.pop()
        return load_receivers(*args)

    monkeypatch.setattr(notifier, "load_receivers", fail_first)
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    made = Notifier(settings, web)
    made.start()
    server.await_taken(1)
    made.finish(SOON)
    assert not faults
    assert load(web)[0].error == ""


def test_an_internal_error_puts_a_receiver_off_as_any_other(settings, web, server, monkeypatch):
    def fail(*args, **words):
        raise RuntimeError("a fault of labctl")

    monkeypatch.setattr(notifier, "post", fail)
    listen(web, receiver(server))
    happen(web, ("batch 1", Topic.BATCH_STARTED))
    tell(settings, web)
    assert load(web)[0].error == "internal error"
    assert load(web)[0].failures >= 1


def test_an_event_with_half_a_character_is_told(settings, web, server):
    listen(web, receiver(server))
    with web.write() as connection:
        add_event(
            connection,
            at=NOW,
            scale_set="web",
            kind=EventKind.FAILURE,
            message="x",
            detail="half \ud83d",
        )
    tell(settings, web)
    assert server.documents[0]["data"]["detail"] == "half ?"


@pytest.mark.parametrize("rest", [[], ["other"]])
def test_who_is_gone_is_not_to_be_tried_again(settings, web, server, rest):
    made = Notifier(settings, web)
    made._next_try[("web", "nightly")] = 0.0
    listen(web, *(receiver(server, name) for name in rest))
    made._send_couriers()
    assert made._next_try == {}


def test_the_end_waits_once_for_all_receivers_together(settings, web, monkeypatch):
    monkeypatch.setattr(notifier, "_CALL", timedelta(seconds=5))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with web.write() as connection:
            for name in ("web", "app"):
                everyone = [
                    Notification(name=f"r{i}", url=url, allow_http=True, events=(TopicFilter.ALL,))
                    for i in range(10)
                ]
                save_receivers(connection, name, everyone)
                add_event(connection, at=NOW, scale_set=name, kind=EventKind.REQUEST, message="x")
        made = Notifier(settings, web)
        made._send_couriers()
        couriers = list(made._couriers.values())
        made.start()
        made.finish(timedelta(milliseconds=50))
        assert [each.is_alive() for each in couriers] == [True] * 20
    for each in couriers:  # hung up on
        each.join(SOON.total_seconds())
        assert not each.is_alive()
