"""Who looks at a scale set when no keeper of this process does."""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest

from labctl.controller.board import Board
from labctl.controller.clock import now
from labctl.controller.lock import try_lock
from labctl.controller.onlooker import Onlooker
from labctl.errors import HostError
from labctl.model.plan import Plan
from labctl.settings import Settings
from tests.controller.test_models import apply
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import view


@pytest.fixture
def lab(tmp_path):
    return SimpleNamespace(settings=Settings(state_dir=tmp_path / "state", uri="test:///default"))


def test_what_nobody_works_on_is_looked_at_unless_it_was_a_moment_ago(lab, database):
    apply(database)
    board = Board()
    looks = Onlooker(lab, board)
    moment = now()
    assert looks.is_needed("web", moment)
    board.put(view(database), Plan(), at=moment)
    assert not looks.is_needed("web", moment + timedelta(milliseconds=500))
    assert looks.is_needed("web", moment + timedelta(seconds=3))


def test_a_keeper_of_ours_is_trusted_until_it_is_silent_for_long(lab, database):
    apply(database)
    board = Board()
    looks = Onlooker(lab, board)
    moment = now()
    with try_lock(lab.settings, "web") as is_ours:
        assert is_ours
        assert not looks.is_needed("web", moment)
        board.put(view(database), Plan(), at=moment)
        assert not looks.is_needed("web", moment + timedelta(seconds=10))
        assert looks.is_needed("web", moment + timedelta(seconds=40))


def test_where_another_process_works_it_is_looked_at(lab):
    with try_lock(lab.settings, "web"):
        (lab.settings.locks_dir / "web.lock").write_text(f"{os.getppid()}\n")
        assert Onlooker(lab, Board()).is_needed("web", now())


def test_a_look_is_pinned_up_with_the_moment_at_which_it_began(lab, database):
    apply(database)
    board = Board()
    seen = view(database)
    began = []

    def look(name):
        began.append((name, now()))
        return seen, Plan()

    looks = Onlooker(lab, board, look=look)
    looks.ask("web")
    looks.ask("web")  # one is under way, or was a moment ago
    looks._pool.shutdown(wait=True)
    ((name, at),) = began
    assert name == "web"
    assert board.find("web").at <= at


def test_a_look_that_fails_is_no_news(lab):
    def look(_name):
        raise HostError("libvirt does not answer")

    board = Board()
    looks = Onlooker(lab, board, look=look)
    looks.ask("web")
    looks._pool.shutdown(wait=True)
    assert board.find("web") is None
