"""Approvals by a program and by a server on loopback, recorded in a real store."""

import json
import socket
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest

from labctl.controller import approvals
from labctl.controller.approvals import Asker, ask, find_question
from labctl.controller.clock import now
from labctl.controller.signals import Signal
from labctl.controller.upgrade_control import approve_batch
from labctl.errors import LabError
from labctl.model.control import ApprovalPolicy, UpgradeControl
from labctl.model.notification import Topic
from labctl.model.plan import AskApproval
from labctl.model.webhook import Webhook
from labctl.store.events import load_events
from labctl.store.upgrades import change_upgrade, load_upgrade
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import decide, start_upgrade, view
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.drivers.webhook_server import WebhookServer

SOON = 10  # seconds; a test that waits so long has failed


@pytest.fixture
def server():
    made = WebhookServer()
    yield made
    made.stop()


@pytest.fixture
def lab(web, tmp_path):
    return SimpleNamespace(database=web, settings=SimpleNamespace(locks_dir=tmp_path / "locks"))


@pytest.fixture
def asking(web, monkeypatch):
    """Begins an upgrade that asks like this; the value is its id."""
    monkeypatch.setattr(approvals, "_FIRST_PAUSE", timedelta(milliseconds=10))

    def begin(**policy):
        upgrade = start_upgrade(web)
        control = UpgradeControl(approval=ApprovalPolicy(**policy))
        with web.write() as connection:
            change_upgrade(connection, upgrade, control=control.model_dump_json())
        decide(web, AskApproval(upgrade=upgrade, batch=1, reason="batch 1"), now=now())
        return upgrade

    return begin


def webhook(server):
    return Webhook(url=server.url, allow_http=True)


def load(web, upgrade):
    with web.read() as connection:
        return load_upgrade(connection, upgrade)


def messages(web):
    with web.read() as connection:
        return [event.message for event in load_events(connection)]


def settle(lab):
    """Ask until there is an answer."""
    answered = threading.Event()
    asker = Asker(lab, answered.set)
    try:
        asker.consider(view(lab.database))
        asker.consider(view(lab.database))  # the same question is not asked beside itself
        assert answered.wait(SOON)
    finally:
        asker.close()


def answer(decision, reason=None):
    content = {"decision": decision} | ({"reason": reason} if reason else {})
    return (200, json.dumps(content).encode(), {})


def test_a_server_is_asked_until_it_decides(lab, web, server, asking):
    upgrade = asking(webhook=webhook(server))
    server.answers = [(202, b"", {}), (503, b"", {}), answer("Approve", "go\nahead")]
    settle(lab)
    assert load(web, upgrade).approved_batch == 1
    by = f"the webhook 127.0.0.1:{server.port}"
    assert messages(web)[-1] == f"batch 1 of upgrade {upgrade} approved by {by}: go ahead"
    trouble = [text for text in messages(web) if "gave no answer" in text]
    assert len(trouble) == 1
    assert "answered 503; asked again until" in trouble[0]
    told = server.documents[0]
    assert (told["id"], told["batch"]) == (f"web-{upgrade}-1", 1)
    assert told["target"]["version"] == "1.1.0"
    with web.read() as connection:
        assert load_events(connection)[-1].topic == Topic.APPROVAL_ANSWERED


def test_a_server_that_rejects_ends_the_upgrade_with_its_reason(lab, web, server, asking):
    upgrade = asking(webhook=webhook(server))
    server.answers = [answer("Reject", "freeze")]
    settle(lab)
    found = load(web, upgrade)
    by = f"the webhook 127.0.0.1:{server.port}"
    assert found.cancel_reason == f"batch 1 was rejected by {by}: freeze"
    assert found.cancel_asked_at is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"decision": "yes"}',
        b"{",
        b'{"decision": 1}',
        b'{"decision": []}',
        b'{"decision": {}}',
        b"\xff",
        b"[" * 60000,
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_what_is_no_decision_is_none(lab, server, asking, body):
    asking(webhook=webhook(server))
    server.answers = [(200, body, {})]
    question = find_question(view(lab.database))
    with pytest.raises(LabError, match="without"):
        ask(lab, question, Signal())


def test_odd_answers_keep_nobody_from_the_decision(lab, web, server, asking):
    upgrade = asking(webhook=webhook(server))
    odd = rb'{"decision": "Reject", "reason": "freeze \ud83d\u001b[31m\u0000 now"}'
    server.answers = [(200, b'{"decision": []}', {}), (200, b"[" * 60000, {}), (200, odd, {})]
    settle(lab)
    found = load(web, upgrade)
    assert found.cancel_reason.endswith(": freeze ? [31m now")
    assert len([text for text in messages(web) if "gave no answer" in text]) == 1


def test_an_internal_error_is_no_answer_and_the_question_is_asked_again(
    lab, web, server, asking, monkeypatch
):
    upgrade = asking(webhook=webhook(server))
    server.default = answer("Approve")
    faults = [RuntimeError("a fault of labctl"), TypeError("another")]

    def fail_first(*args, **words):
        if faults:
            raise faults.pop()
        return approve_batch(*args, **words)

    monkeypatch.setattr(approvals, "approve_batch", fail_first)
    settle(lab)
    assert load(web, upgrade).approved_batch == 1
    assert len(server.taken) == 3
    assert len([text for text in messages(web) if "gave no answer: internal error" in text]) == 1


@pytest.mark.parametrize(
    ("script", "approves", "reason"),
    [("cat; echo; echo fine", True, "fine"), ("echo no room >&2; exit 4", False, "no room")],
)
def test_a_program_decides_by_its_exit_code(lab, web, asking, script, approves, reason):
    upgrade = asking(command=("sh", "-c", script))
    settle(lab)
    found = load(web, upgrade)
    assert (found.approved_batch == 1, found.cancel_asked_at is None) == (approves, approves)
    assert messages(web)[-1].endswith(f"by the command 'sh': {reason}")


def test_a_program_that_cannot_be_run_decides_nothing(lab, asking):
    asking(command=("/nowhere/ask",))
    with pytest.raises(LabError, match="is not there"):
        ask(lab, find_question(view(lab.database)), Signal())


def test_a_person_may_be_faster(lab, web, server, asking):
    upgrade = asking(webhook=webhook(server))
    facts = view(web)
    with web.write() as connection:
        approve_batch(connection, "web", now=now())
    server.answers = [answer("Reject")]
    asker = Asker(lab, lambda: None)
    asker.consider(facts)
    server.await_taken(1)
    asker.consider(view(web))  # nothing is asked any more: it gives up
    assert load(web, upgrade).cancel_asked_at is None


def test_nobody_is_asked_in_a_pause_or_where_a_person_decides(web, asking, server):
    upgrade = asking(webhook=webhook(server))
    assert find_question(view(web)) is not None
    with web.write() as connection:
        change_upgrade(connection, upgrade, paused_at=now())
    assert find_question(view(web)) is None
    with web.write() as connection:
        plain = UpgradeControl(approval=ApprovalPolicy()).model_dump_json()
        change_upgrade(connection, upgrade, paused_at=None, control=plain)
    assert find_question(view(web)) is None


def test_an_answer_that_never_comes_holds_nobody_up(lab, server, asking):
    asking(webhook=webhook(server))
    server.default = (202, b"", {})
    asker = Asker(lab, lambda: None)
    asker.consider(view(lab.database))
    server.await_taken(2)
    asker.close()


def test_the_end_does_not_wait_for_a_server(lab, asking, monkeypatch):
    monkeypatch.setattr(approvals, "_PATIENCE", timedelta(minutes=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        asking(webhook=Webhook(url=url, allow_http=True))
        asker = Asker(lab, lambda: None)
        asker.consider(view(lab.database))
        thread = asker._thread
        asker.close()
        assert thread.is_alive()
    thread.join(SOON)
    assert not thread.is_alive()


def test_the_end_waits_for_a_program(lab, asking, monkeypatch):
    monkeypatch.setattr(approvals, "_PATIENCE", timedelta(minutes=1))
    asking(command=("sh", "-c", "sleep 100"))
    asker = Asker(lab, lambda: None)
    asker.consider(view(lab.database))
    thread = asker._thread
    asker.close()
    assert not thread.is_alive()
