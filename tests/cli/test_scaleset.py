"""What the commands for whole scale sets print, of a real store."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from labctl.cli.app import main
from labctl.model.event import EventKind
from labctl.model.notification import Topic
from labctl.store.events import add_event
from tests.controller.test_record import NOW, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture


@pytest.fixture(autouse=True)
def lab(web, tmp_path, monkeypatch):
    """The store is real; nobody asks libvirt."""

    @contextmanager
    def opened(context):
        yield SimpleNamespace(database=web, check=lambda: None)

    @contextmanager
    def opened_store(context):
        yield web

    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("labctl.cli.follow.opened_lab", opened)
    monkeypatch.setattr("labctl.cli.follow.opened_store", opened_store)
    monkeypatch.setattr("labctl.controller.work.look_once", lambda lab, name: (view(web), None))


@pytest.fixture
def steering(web):
    """An event that quotes what a guest said."""
    with web.write() as connection:
        add_event(
            connection,
            at=NOW,
            scale_set="web",
            instance="web_0",
            kind=EventKind.FAILURE,
            message="drain failed: \x1b]0;title\x07",
            detail="first\n\x1b[2J\x1b]52;c;cm0=\x07second",
            topic=Topic.HOOK_FAILED,
        )


def test_events_have_their_topic_and_detail_for_programs(steering, capsys):
    assert main(["events", "web", "-o", "json"]) == 0
    *_, last = json.loads(capsys.readouterr().out)
    assert (last["topic"], last["detail"].splitlines()[0]) == ("hook.failed", "first")


def test_why_prints_nothing_that_steers_the_terminal(steering, capsys):
    assert main(["why", "web_0"]) == 0
    told = capsys.readouterr().out
    assert "drain failed:" in told
    assert "      first\n" in told
    assert "second" in told
    assert not set(told) & set("\x1b\x07")


def test_a_capacity_that_is_only_recorded_comes_with_the_next_step(capsys):
    assert main(["scale", "web", "0", "--no-wait"]) == 0
    assert capsys.readouterr().out == "web: recorded; run: labctl scale web 0\n"
    assert main(["scale", "web", "1", "--no-wait", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["message"] == "recorded"
