"""Holding an upgrade back, in the store."""

from datetime import timedelta

import pytest

from labctl.controller.upgrade_control import ignore_windows, pause_upgrade, resume_upgrade
from labctl.controller.upgrades import cancel_upgrade
from labctl.errors import NotFoundError, RefusedError
from labctl.store.events import load_events
from labctl.store.upgrades import load_upgrade
from tests.controller.test_record import NOW, start_upgrade
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture

LATER = NOW + timedelta(minutes=1)


def ask(database, function, *arguments, **options):
    with database.write() as connection:
        return function(connection, *arguments, now=LATER, **options)


def load(database, upgrade_id):
    with database.read() as connection:
        return load_upgrade(connection, upgrade_id)


def last_event(database):
    with database.read() as connection:
        return load_events(connection)[-1]


def test_a_pause_is_recorded_once_and_taken_back(web):
    upgrade = start_upgrade(web)
    assert ask(web, pause_upgrade, "web") == (upgrade, True)
    assert load(web, upgrade).paused_at == LATER
    assert ask(web, pause_upgrade, "web") == (upgrade, False)
    assert "the current batch finishes" in last_event(web).message
    assert ask(web, resume_upgrade, "web") == (upgrade, True)
    assert load(web, upgrade).paused_at is None
    assert ask(web, resume_upgrade, "web") == (upgrade, False)
    assert last_event(web).message == f"upgrade {upgrade} resumed"


@pytest.mark.parametrize("function", [pause_upgrade, resume_upgrade])
def test_nothing_is_paused_or_resumed_where_nothing_runs(web, function):
    with pytest.raises(RefusedError, match="no upgrade of 'web' is running"):
        ask(web, function, "web")
    with pytest.raises(NotFoundError):
        ask(web, function, "other")


def test_what_is_being_cancelled_cannot_be_paused(web):
    start_upgrade(web)
    ask(web, cancel_upgrade, "web")
    with pytest.raises(RefusedError, match="being cancelled"):
        ask(web, pause_upgrade, "web")


def test_a_running_upgrade_is_told_to_ignore_windows(web):
    upgrade = start_upgrade(web)
    assert not load(web, upgrade).ignores_windows
    ask(web, ignore_windows, "web")
    assert load(web, upgrade).ignores_windows
    assert last_event(web).message == f"upgrade {upgrade} waits for maintenance windows no more"
