"""What the loop waits for, when it gives up, and what a fault of one instance holds up."""

import threading
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace

import pytest

from labctl.controller import observe
from labctl.controller import reconciler as module
from labctl.controller.clock import now
from labctl.controller.reconciler import Reconciler, _Job
from labctl.controller.share import Share
from labctl.controller.signals import Signal
from labctl.drivers.hypervisor import ObservedDomain
from labctl.errors import HostError, InstanceHostError, RefusedError, TimedOutError
from labctl.model.instance import Power
from labctl.model.plan import AwaitReady, Define, Plan, Prepare, Start, Stop
from labctl.store.events import load_events
from labctl.store.instances import change_generation, load_identities
from labctl.store.scale_sets import mark_deleting
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.planner.world import T0, make_set, upgrading

LONG = timedelta(days=1)


def test_a_command_waits_for_a_paused_upgrade_without_end():
    reconciler = Reconciler(None, "web", _moved_at=T0)
    reconciler._raise_when_stuck(upgrading(make_set(2), paused_at=T0), Plan(), T0 + LONG)


def test_a_command_gives_up_where_nothing_moves_for_long():
    reconciler = Reconciler(None, "web", _moved_at=T0)
    with pytest.raises(TimedOutError, match="nothing moves in 'web' any more"):
        reconciler._raise_when_stuck(upgrading(make_set(2)), Plan(), T0 + LONG)


# --- waiting --------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)


class Ears:
    """Stands in for the observer: answers come, and the test says which one is news."""

    def __init__(self, reconciler, *, answers=1000, news_at=None, then=None):
        self.reconciler, self.answers, self.news_at = reconciler, answers, news_at
        self.heard, self.then = 0, then or (lambda: None)
        reconciler._wake.set()

    def next_probe(self):
        return None

    def hear(self, now):
        self.heard += 1
        if self.heard == self.answers:
            self.then()
        self.reconciler._wake.set()  # the next answer is there
        return self.heard == self.news_at

    def mark_stale(self):
        pass


def rest(web, **values):
    reconciler = Reconciler(SimpleNamespace(database=web), "web")
    ears = Ears(reconciler, **values)
    return reconciler, ears


def test_answers_are_taken_in_until_one_is_news(web):
    reconciler, ears = rest(web, news_at=3)
    reconciler._rest(HOUR, ears, web.find_version())
    assert ears.heard == 3


def test_a_commit_of_another_process_ends_the_rest_at_the_next_answer(web):
    def change():
        with web.write() as connection:
            mark_deleting(connection, "web")

    reconciler, ears = rest(web, answers=2, then=change)
    reconciler._rest(HOUR, ears, web.find_version())
    assert ears.heard == 2


def test_whoever_wakes_the_loop_ends_the_rest(web):
    reconciler, ears = rest(web, answers=2)
    ears.then = reconciler.wake
    reconciler._rest(HOUR, ears, web.find_version())
    assert ears.heard == 2


def test_time_ends_the_rest(web):
    reconciler, ears = rest(web)
    reconciler._rest(timedelta(0), ears, web.find_version())
    assert ears.heard == 0


# --- a fault of one instance ----------------------------------------------------------------------

IN_USE = InstanceHostError("cannot start 'web_0': a disk is in use", hint="find it with: lsof")
START = Start(instance="web_0", generation=1, reason="image 1.0.0")
SECOND = timedelta(seconds=1)


def keep(web, *, is_daemon=True):
    stops = threading.Event() if is_daemon else None
    return Reconciler(SimpleNamespace(database=web), "web", stops=stops)


def finish(reconciler, action, error, now=T0):
    """Let an action end, as its thread does."""
    future = Future()
    future.set_exception(error) if error is not None else future.set_result(None)
    reconciler._jobs[action.instance] = _Job(action, future, Signal())
    reconciler._take_in_finished(SimpleNamespace(mark_stale=lambda: None), now)


@pytest.mark.parametrize("error", [IN_USE, RefusedError("the disk to delete is in use")])
def test_in_a_daemon_a_fault_of_one_instance_holds_it_back_alone(web, error):
    reconciler = keep(web)
    finish(reconciler, START, error)
    assert reconciler._trouble is None
    assert reconciler._jobs == {}
    setback = reconciler._find_setbacks(T0)["web_0"]
    assert (setback.step, setback.reason, setback.until) == ("Start", error.brief, T0 + SECOND)
    assert reconciler._find_setbacks(T0 + SECOND) == {}


def test_the_wait_doubles_to_a_minute_and_the_fault_is_told_once(web):
    reconciler, now, waits = keep(web), T0, []
    for _ in range(8):
        finish(reconciler, START, IN_USE, now)
        until = reconciler._find_setbacks(now)["web_0"].until
        waits.append((until - now).total_seconds())
        now = until
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    with web.read() as connection:
        told = [e.message for e in load_events(connection) if e.instance == "web_0"]
    assert told[1:] == [f"Start failed and is tried again: {IN_USE.brief}"]


def test_success_and_another_step_begin_with_a_short_wait_again(web):
    reconciler = keep(web)
    for _ in range(3):
        finish(reconciler, START, IN_USE)
    finish(reconciler, START, None)
    assert reconciler._find_setbacks(T0) == {}
    finish(reconciler, START, IN_USE)
    finish(reconciler, START, IN_USE)
    finish(reconciler, Stop(instance="web_0", reason="deleted"), RefusedError("no"))
    assert reconciler._find_setbacks(T0)["web_0"].until == T0 + SECOND


def test_a_clock_that_is_set_back_prolongs_no_wait(web):
    reconciler = keep(web)
    finish(reconciler, START, IN_USE)
    assert reconciler._find_setbacks(T0 - HOUR) == {}


def test_what_concerns_the_whole_host_stops_the_work_of_a_daemon_too(web):
    reconciler = keep(web)
    finish(reconciler, START, HostError("hypervisor 'qemu:///system' does not answer"))
    assert reconciler._trouble is not None
    assert reconciler._find_setbacks(T0) == {}


def test_a_command_fails_with_the_first_fault(web):
    reconciler = keep(web, is_daemon=False)
    finish(reconciler, START, IN_USE)
    assert reconciler._trouble is IN_USE


class Host:
    """Stands in for hypervisor and hands: every step works, but web_0 cannot be prepared."""

    def __init__(self, database, stops):
        self.database, self.stops = database, stops
        self.domains, self.tries = {}, 0
        with database.read() as connection:
            self.identities = load_identities(connection, "web")

    def subscribe(self, listener):
        return lambda: None

    def list_domains(self, state_dir, *, scale_set):
        return dict(self.domains)

    def close(self):
        pass

    def execute(self, view, action, signal):
        name, moment = action.instance, now()
        if name == "web_0":
            self.tries += 1
            raise IN_USE
        changes = {}
        match action:
            case Prepare():
                changes = {"prepared": True}
            case Define():
                self.domains[name] = self._describe(name, Power.STOPPED)
            case Start():
                self.domains[name] = self._describe(name, Power.RUNNING)
                changes = {"started_at": moment}
            case AwaitReady():
                changes = {"ready_at": moment}
        if changes:
            with self.database.write() as connection:
                change_generation(connection, name, 1, **changes)
        if isinstance(action, AwaitReady):
            self.stops.set()

    def _describe(self, name, power):
        return ObservedDomain(
            name=name,
            uuid=self.identities[name].uuid,
            generation=1,
            config_hash="same",
            power=power,
            reason="",
        )


class Holds:
    """A listener that remembers what instances waited for."""

    def __init__(self):
        self.reasons = set()

    def update(self, scale_set, plan, busy):
        self.reasons |= {(hold.subject, hold.reason.rpartition(": ")[2]) for hold in plan.holds}


def test_the_others_of_a_scale_set_come_up_beside_one_that_cannot(web, tmp_path, monkeypatch):
    stops, listener = threading.Event(), Holds()
    host = Host(web, stops)
    monkeypatch.setattr(observe, "build_domain", lambda *_: SimpleNamespace(config_hash="same"))
    monkeypatch.setattr(module, "Executor", lambda lab, observer: host)
    lab = SimpleNamespace(
        database=web,
        hypervisor=host,
        settings=SimpleNamespace(state_dir=tmp_path),
        boots_at_once=1,
        overhead_per_instance=0,
        share=Share(),
    )
    reconciler = Reconciler(lab, "web", listener, stops=stops)
    outcome = reconciler.run(lambda *_: None)
    assert (outcome.message, host.domains["web_1"].power) == ("stopped", Power.RUNNING)
    assert host.tries >= 1
    assert "web_0" not in host.domains
    assert ("web_0", IN_USE.brief.rpartition(": ")[2]) in listener.reasons
