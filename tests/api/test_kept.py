"""Answers that are kept: made once for many, and not more of them than there is room for."""

import threading
from concurrent.futures import ThreadPoolExecutor

from labctl.api.call import Answer
from labctl.api.kept import _ROOM, KeptAnswers
from labctl.api.route import Route, Routes
from labctl.model.access import Scope
from labctl.store.tokens import load_tokens
from tests.api.serving import Api, serving

MANY = 12
VERSION = (1, 1)


def let_in(api: Api) -> None:
    """Use the token once: that this is written down changes the version of the lab."""
    api.ask("GET", "/nowhere", scope=Scope.READ)
    while True:
        with api.desk.database.read() as connection:
            if any(token.last_used_at for token in load_tokens(connection)):
                return


def test_many_who_ask_for_the_same_wait_for_one_answer(tmp_path, monkeypatch):
    made: list[str] = []
    asked = threading.Barrier(2, timeout=30)
    may_end = threading.Event()

    def answer(desk, call):
        made.append(call.request_id)
        asked.wait()
        assert may_end.wait(30)
        return Answer(body={"number": len(made)})

    route = Route(
        method="GET",
        path="/slow",
        handler=answer,
        summary="Slow",
        needs_version=False,
        is_kept=True,
    )
    monkeypatch.setattr("tests.api.serving.make_routes", lambda: Routes((route,)))
    with serving(tmp_path) as api, ThreadPoolExecutor(MANY) as pool:
        let_in(api)
        waiting = [pool.submit(api.ask, "GET", "/slow", scope=Scope.READ) for _ in range(MANY)]
        asked.wait()
        may_end.set()
        assert [each.result().json() for each in waiting] == [{"number": 1}] * MANY
        assert len(made) == 1


def test_what_fails_is_asked_again_by_each_who_waits(tmp_path, monkeypatch):
    made: list[str] = []

    def answer(desk, call):
        made.append(call.request_id)
        raise LookupError("a fault of ours")

    route = Route(
        method="GET", path="/bad", handler=answer, summary="Bad", needs_version=False, is_kept=True
    )
    monkeypatch.setattr("tests.api.serving.make_routes", lambda: Routes((route,)))
    with serving(tmp_path) as api, ThreadPoolExecutor(MANY) as pool:
        let_in(api)
        waiting = [pool.submit(api.ask, "GET", "/bad", scope=Scope.READ) for _ in range(MANY)]
        assert {each.result().status_code for each in waiting} == {500}
        assert len(made) == MANY


def test_many_long_questions_take_no_more_room_than_there_is():
    kept = KeptAnswers()
    question = "x" * 2**20
    for number in range(64):
        key = ("https://lab", "/path", f"{number}{question}")
        kept.keep(key, VERSION, Answer(body={"value": []}))
    held = sum(len(text) for key in kept._answers for text in key)
    assert 0 < held <= _ROOM


def test_many_small_questions_take_no_more_room_than_there_is():
    kept = KeptAnswers()
    for number in range(_ROOM // 1024 + 10):
        kept.keep(("", "", str(number)), VERSION, Answer(body=[]))
    assert len(kept._answers) < _ROOM // 1024
