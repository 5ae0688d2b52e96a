"""What one reconciler sees: how often it reads the store, and what it hears between two turns."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from labctl.controller import observe as module
from labctl.controller import prober
from labctl.controller.observe import Observer
from labctl.controller.share import Share
from labctl.drivers.hypervisor import ObservedDomain
from labctl.drivers.probe import ProbeResult
from labctl.model.event import EventKind
from labctl.model.instance import HealthState, Power
from labctl.store.events import load_events
from labctl.store.instances import change_instance, load_identities
from tests.controller.test_models import NOW, view
from tests.controller.test_models import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_models import web as web  # noqa: PLC0414 - a fixture

SECOND = timedelta(seconds=1)
HEALTHY, UNHEALTHY = HealthState.HEALTHY, HealthState.UNHEALTHY


class Stand:
    """An observer of two running instances whose application says what the test wants."""

    def __init__(self, database, pool, tmp_path, monkeypatch):
        self.database, self.state, self.answered = database, HEALTHY, 0
        self.statements = []
        with database.read() as connection:
            self.identities = load_identities(connection, "web")
        # What a domain is made of has tests of its own.
        monkeypatch.setattr(module, "build_domain", lambda *_: SimpleNamespace(config_hash="same"))
        monkeypatch.setattr(prober, "check", self._answer)
        lab = SimpleNamespace(
            database=database,
            hypervisor=self,
            settings=SimpleNamespace(state_dir=tmp_path),
            boots_at_once=2,
            overhead_per_instance=0,
            share=Share(),
        )
        self.observer = Observer(lab, "web", pool, lambda: None, answered=self._count)
        event.listen(database._engine, "before_cursor_execute", self._remember)

    def list_domains(self, state_dir, *, scale_set):
        return {
            name: ObservedDomain(
                name=name,
                uuid=identity.uuid,
                generation=1,
                config_hash="same",
                power=Power.RUNNING,
                reason="booted",
            )
            for name, identity in self.identities.items()
        }

    def turn(self, now):
        """One turn of the loop, with the answers to what it asks."""
        self.observer.observe(now, busy=frozenset())
        self.observer._prober.await_answers(10 * SECOND)
        return self.observer.observe(now, busy=frozenset())

    def hear(self, now):
        """What is asked between two turns, and the answers to it."""
        self.observer.hear(now)
        self.observer._prober.await_answers(10 * SECOND)
        return self.observer.hear(now)

    def _answer(self, target, *, timeout):
        return ProbeResult(state=self.state, detail=self.state.value)

    def _count(self):
        self.answered += 1

    def _remember(self, connection, cursor, statement, *_):
        if "data_version" not in statement:
            self.statements.append(statement)


@pytest.fixture
def stand(web, tmp_path, monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        yield Stand(web, pool, tmp_path, monkeypatch)


def settle(stand):
    """Until both are known to be healthy, and that is recorded and read."""
    stand.turn(NOW)
    return stand.turn(NOW + SECOND)


def test_a_turn_reads_the_store_only_when_somebody_has_written(stand):
    before = settle(stand)
    stand.observer.observe(NOW + SECOND, busy=frozenset())
    stand.statements.clear()
    assert stand.observer.observe(NOW + SECOND, busy=frozenset()) == before
    assert stand.statements == []
    with stand.database.write() as connection:  # as another process does
        change_instance(connection, "web_1", restart_asked_at=NOW)
    stand.statements.clear()
    seen = stand.observer.observe(NOW + SECOND, busy=frozenset())
    assert seen.instances[1].restart_asked_at == NOW
    assert stand.statements


def test_answers_that_say_the_same_are_no_reason_for_a_turn(stand):
    settle(stand)
    asked = stand.answered
    stand.statements.clear()
    assert not stand.hear(NOW + 60 * SECOND)
    assert (stand.answered, stand.statements) == (asked + 2, [])


def test_a_verdict_that_turns_between_two_turns_is_recorded_by_the_next(stand):
    settle(stand)
    stand.state = UNHEALTHY
    assert stand.hear(NOW + 60 * SECOND)
    assert {i.health.state for i in view(stand.database).instances} == {HEALTHY}
    seen = stand.observer.observe(NOW + 60 * SECOND, busy=frozenset())
    assert {i.health.state for i in seen.instances} == {UNHEALTHY}
    assert {i.health.state for i in view(stand.database).instances} == {UNHEALTHY}
    with stand.database.read() as connection:
        told = [e.message for e in load_events(connection) if e.kind is EventKind.HEALTH]
    assert told[-2:] == ["unhealthy: Unhealthy"] * 2


def test_a_verdict_about_an_instance_that_was_switched_off_meanwhile_is_not_recorded(stand):
    settle(stand)
    stand.state = UNHEALTHY
    assert stand.hear(NOW + 60 * SECOND)
    stand.observer.forget_health("web_0")  # as the action does that switches it on again
    stand.observer.observe(NOW + 60 * SECOND, busy=frozenset())
    states = [i.health.state for i in view(stand.database).instances]
    assert states == [HEALTHY, UNHEALTHY]
