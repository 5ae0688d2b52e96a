"""The daemon's threads, without a host: what keepers meet is made up."""

import threading
from types import SimpleNamespace

import pytest

from labctl.controller import serve
from labctl.drivers.service_manager import ServiceManager
from labctl.errors import HostError
from labctl.model.event import EventKind
from labctl.model.notification import Notification, TopicFilter
from labctl.planner import Timing
from labctl.store.events import add_event
from labctl.store.receivers import save_receivers
from tests.controller.test_record import NOW
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.drivers.webhook_server import WebhookServer

SOON = 10  # seconds; a test that waits so long has failed


class Story:
    """A watcher that remembers."""

    def __init__(self):
        self.notes = []

    def event(self, event):
        pass

    def note(self, at, subject, message):
        self.notes.append((subject, message))

    def update(self, scale_set, plan, busy):
        pass


def make_daemon(web, tmp_path):
    lab = SimpleNamespace(
        database=web, settings=SimpleNamespace(locks_dir=tmp_path / "locks", state_dir=tmp_path)
    )
    story = Story()
    return serve.Daemon(lab, timing=Timing(), watcher=story, manager=ServiceManager({})), story


def test_a_main_loop_that_fails_ends_its_keepers(web, tmp_path, monkeypatch):
    begun = threading.Event()

    def keep_on(self, goal, *, deadline=None):
        begun.set()
        self.stops.wait()

    monkeypatch.setattr(serve.Reconciler, "run", keep_on)
    daemon, _ = make_daemon(web, tmp_path)
    survey, stop, errors = daemon._survey, threading.Event(), []

    def fail_later(stop):
        if begun.is_set():
            raise HostError("the store cannot be used")
        survey(stop)

    monkeypatch.setattr(daemon, "_survey", fail_later)
    monkeypatch.setattr(serve, "_SURVEY", serve.timedelta(0))

    def run():
        try:
            daemon.run(stop)
        except HostError as error:
            errors.append(error)

    main = threading.Thread(target=run, daemon=True)
    main.start()
    main.join(SOON)
    ended = not main.is_alive()
    stop.set()
    main.join(SOON)
    assert ended, "it hangs instead of ending with its error"
    assert [str(error) for error in errors] == ["the store cannot be used"]


@pytest.mark.parametrize("error", [RuntimeError("a fault of labctl"), HostError("no libvirt")])
def test_a_keeper_that_fails_is_told_and_waits_before_it_tries_again(
    web, tmp_path, monkeypatch, error
):
    tries, told = [], threading.Event()

    def fail(self, goal, *, deadline=None):
        tries.append(1)
        raise error

    monkeypatch.setattr(serve.Reconciler, "run", fail)
    daemon, story = make_daemon(web, tmp_path)
    monkeypatch.setattr(story, "note", lambda at, who, text: (story.notes.append(text), told.set()))
    stop = threading.Event()
    main = threading.Thread(target=daemon.run, args=(stop,), daemon=True)
    main.start()
    assert told.wait(SOON)
    stop.set()
    main.join(SOON)
    assert tries
    assert str(error) in story.notes[0]
    assert story.notes[0].endswith("trying again in 1 s")


def test_a_keeper_that_worked_for_long_begins_with_a_short_wait_again(web, tmp_path, monkeypatch):
    clock, waits, stop = [0.0], [], threading.Event()
    lasts = iter([0, 0, 3600, 0])

    def work(self, goal, *, deadline=None):
        clock[0] += next(lasts)
        raise HostError("libvirt is away")

    monkeypatch.setattr(serve.Reconciler, "run", work)
    monkeypatch.setattr(serve, "monotonic", lambda: clock[0], raising=False)
    daemon, _ = make_daemon(web, tmp_path)

    class Wake:
        def set(self):
            pass

        def clear(self):
            pass

        def wait(self, seconds):
            waits.append(seconds)
            if len(waits) == 4:
                stop.set()

    lab = daemon._lab
    keeper = serve._Keeper(name="web", reconciler=serve.Reconciler(lab, "web", stops=stop))
    keeper.wake = Wake()
    daemon._keep(keeper, stop)
    assert waits == [1, 2, 1, 2]


def test_a_daemon_tells_receivers_what_was_left_untold_and_what_comes(web, tmp_path, monkeypatch):
    server = WebhookServer()
    receiver = Notification(name="a", url=server.url, allow_http=True, events=(TopicFilter.ALL,))
    with web.write() as connection:
        save_receivers(connection, "web", [receiver])

    def happen(message):
        with web.write() as connection:
            add_event(connection, at=NOW, scale_set="web", kind=EventKind.REQUEST, message=message)

    monkeypatch.setattr(serve.Reconciler, "run", lambda self, goal: self.stops.wait())
    daemon, _ = make_daemon(web, tmp_path)
    happen("before")
    stop = threading.Event()
    main = threading.Thread(target=daemon.run, args=(stop,), daemon=True)
    main.start()
    server.await_taken(1, SOON)
    happen("meanwhile")
    server.await_taken(2, SOON)
    happen("at the end")
    stop.set()
    main.join(SOON)
    server.stop()
    assert [each["data"]["message"] for each in server.documents] == [
        "before",
        "meanwhile",
        "at the end",
    ]
