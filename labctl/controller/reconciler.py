"""The loop of one scale set: observe, plan, record, execute, until a goal is reached."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

from labctl.controller.approvals import Asker
from labctl.controller.clock import now as read_clock
from labctl.controller.execute import Executor
from labctl.controller.goal import Goal, Outcome
from labctl.controller.lab import Lab
from labctl.controller.observe import Observer
from labctl.controller.record import is_overtaken, record
from labctl.controller.signals import Signal
from labctl.errors import HostError, InstanceHostError, LabError, TimedOutError
from labctl.model.event import EventKind
from labctl.model.plan import (
    Action,
    AwaitReady,
    DeleteInstance,
    Hold,
    Plan,
    RerunCustomData,
    RunExtension,
    RunHook,
    ScaleSet,
    Setback,
    Stop,
)
from labctl.planner import plan as make_plan
from labctl.store.events import add_event
from labctl.store.scale_sets import find_scale_set

_WORKERS = 64  # threads wait for guests most of the time, and are made only when needed
_FIRST_ANSWERS = timedelta(seconds=20)  # three health questions without an answer, and a little
_STUCK_AFTER = timedelta(seconds=60)  # beyond the time that health may take
_WAITING = AwaitReady | RunExtension | RunHook | RerunCustomData  # for a guest, or a program
_LONGEST_WAIT = timedelta(seconds=5)  # then look again, whatever has been heard
_SHORTEST_WAIT = timedelta(milliseconds=5)
_FIRST_DELAY = timedelta(seconds=1)  # before a step is tried again; each time twice as long
_LONGEST_DELAY = timedelta(seconds=60)


# Looks at the fresh facts; may record something, and says what it waits for.
Hook = Callable[[ScaleSet, datetime], Hold | None]


class Listener(Protocol):
    """Is told what happens; the command line draws it."""

    def update(self, scale_set: ScaleSet, plan: Plan, busy: dict[str, Action]) -> None:
        """After every turn of the loop."""


@dataclass(slots=True)
class _Job:
    action: Action
    future: Future[None]
    signal: Signal


@dataclass(frozen=True, slots=True)
class _Fault:
    setback: Setback
    delay: timedelta


@dataclass(slots=True)
class Reconciler:
    """Works on one scale set. Use it inside `try_lock`, from one thread."""

    lab: Lab
    name: str
    listener: Listener | None = None
    hook: Hook | None = None  # of a daemon: it may start upgrades
    stops: threading.Event | None = None  # of a daemon: it works until this is set
    _wake: threading.Event = field(default_factory=threading.Event)
    _has_news: bool = False  # woken by more than a health answer
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _turns: int = 0
    _moved_at: datetime | None = None  # when something was last done
    _trouble: LabError | None = None  # only a person can mend it; no action begins after it
    _faults: dict[str, _Fault] = field(default_factory=dict)  # of a daemon: by instance

    def wake(self) -> None:
        """Look again at once. May be called from any thread."""
        self._has_news = True  # before the event: who sees that must see this
        self._wake.set()

    def run(self, goal: Goal, *, deadline: timedelta | None = None) -> Outcome:
        """Work until `goal` says how it ended.

        Raises TimedOutError at the deadline, HostError when the host does not let the work go on,
        RefusedError when a disk to delete is in use; the next run goes on from the facts.
        """
        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix=self.name) as pool:
            observer = Observer(self.lab, self.name, pool, self.wake, answered=self._wake.set)
            asker = Asker(self.lab, self.wake)
            executor = Executor(self.lab, observer)
            try:
                with observer.subscribed(self._on_domain_stopped):
                    return self._loop(goal, deadline, pool, observer, executor, asker)
            finally:
                # Nothing is undone: what is half done is finished, or goes on from the facts.
                for job in self._jobs.values():
                    job.signal.cancel()
                asker.close()
                executor.close()
                self.lab.share.drop(self.name)

    def _loop(
        self,
        goal: Goal,
        deadline: timedelta | None,
        pool: ThreadPoolExecutor,
        observer: Observer,
        executor: Executor,
        asker: Asker,
    ) -> Outcome:
        started = read_clock()
        while True:
            self._wake.clear()
            self._has_news = False
            if self.stops is not None and self.stops.is_set():
                return Outcome(succeeded=True, message="stopped")
            now = read_clock()
            version = self.lab.database.find_version()  # before anything is read
            self._take_in_finished(observer, now)
            if self._turns:
                view = observer.observe(now, busy=frozenset(self._jobs))
            else:
                # An upgrade that another process began must not be judged by a deadline alone.
                view = observer.observe_answered(_FIRST_ANSWERS)
            self._turns += 1
            if view is None:
                outcome = goal(None, Plan(), now)
                return outcome or Outcome(succeeded=False, message=f"{self.name!r} was deleted")
            view = replace(view, setbacks=self._find_setbacks(now))
            asker.consider(view)
            hold = self.hook(view, now) if self.hook is not None and self._trouble is None else None
            with self.lab.share.planning(view) as view:
                plan = make_plan(view, now)
                self.lab.share.take(self.name, plan)
            if plan.decisions:
                self._record(view, plan, now)
                continue
            if hold is not None:
                plan = replace(plan, holds=(*plan.holds, hold))
            if self._trouble is None:
                self._dispatch(view, plan, pool, executor)
            elif not self._jobs:
                raise self._trouble
            if self.listener is not None:
                self.listener.update(
                    view, plan, {name: job.action for name, job in self._jobs.items()}
                )
            if not self._jobs:
                if view.is_deleting and not view.instances:
                    executor.remove_scale_set(view)
                    return goal(None, Plan(), now) or Outcome(
                        succeeded=False, message=f"{self.name!r} was deleted"
                    )
                outcome = goal(view, plan, now)
                if outcome is not None:
                    return outcome
                if self.stops is None:  # a daemon waits on: it may be helped
                    self._raise_when_stuck(view, plan, now)
            if deadline is not None and now - started > deadline:
                raise TimedOutError(
                    f"{self.name!r} is not there yet after {deadline.total_seconds():.0f} s",
                    detail="; ".join(f"{hold.subject}: {hold.reason}" for hold in plan.holds[:3]),
                    hint="run the same command again to continue",
                )
            wait = self._time_to_wait(plan, now)
            if deadline is not None:
                wait = min(wait, max(started + deadline - now, _SHORTEST_WAIT))
            self._rest(wait, observer, version)

    def _record(self, view: ScaleSet, plan: Plan, now: datetime) -> None:
        with self.lab.database.write() as connection:
            row = find_scale_set(connection, self.name)
            if row is None or is_overtaken(connection, view):
                return  # what the decisions were made for is wanted no more: look again
            record(
                connection,
                view,
                plan.decisions,
                now=now,
                new_identity=self.lab.new_identity(row.subnet),
            )

    def _dispatch(
        self,
        view: ScaleSet,
        plan: Plan,
        pool: ThreadPoolExecutor,
        executor: Executor,
    ) -> None:
        for action in plan.actions:
            job = self._jobs.get(action.instance)
            if job is not None:
                if isinstance(action, Stop | DeleteInstance) and isinstance(job.action, _WAITING):
                    job.signal.cancel()  # what it waits for is wanted no more
                continue
            self._moved_at = None
            signal = Signal()
            future = pool.submit(executor.execute, view, action, signal)
            self._jobs[action.instance] = _Job(action, future, signal)
            future.add_done_callback(lambda _: self.wake())

    def _take_in_finished(self, observer: Observer, now: datetime) -> None:
        for name, job in list(self._jobs.items()):
            if not job.future.done():
                continue
            del self._jobs[name]
            observer.mark_stale()
            error = job.future.exception()
            if error is None:
                fault = self._faults.get(name)
                if fault is not None and fault.setback.step == type(job.action).__name__:
                    del self._faults[name]
            elif not isinstance(error, LabError):
                raise error
            elif self.stops is not None and _concerns_one(error):
                self._set_back(job.action, error, now)
            else:
                self._trouble = error  # the other jobs still come to their ends

    def _set_back(self, action: Action, error: LabError, now: datetime) -> None:
        """Let one instance wait, longer each time, while the others go on."""
        step, known = type(action).__name__, self._faults.get(action.instance)
        is_again = (
            known is not None
            and known.setback.step == step
            and now < known.setback.until + _LONGEST_DELAY
        )
        delay = min(known.delay * 2, _LONGEST_DELAY) if known and is_again else _FIRST_DELAY
        setback = Setback(step=step, reason=error.brief, until=now + delay)
        self._faults[action.instance] = _Fault(setback, delay)
        if known is not None and is_again and known.setback.reason == error.brief:
            return  # it was told
        with self.lab.database.write() as connection:
            add_event(
                connection,
                at=now,
                scale_set=self.name,
                instance=action.instance,
                kind=EventKind.WARNING,
                message=f"{step} failed and is tried again: {error.brief}",
                detail="\n".join(line for line in (error.detail, error.hint) if line),
            )

    def _find_setbacks(self, now: datetime) -> dict[str, Setback]:
        return {
            name: fault.setback
            for name, fault in self._faults.items()
            # None is further away than its delay, unless the clock was set back.
            if now < fault.setback.until <= now + fault.delay
        }

    def _on_domain_stopped(self, instance: str, message: str) -> None:
        """Called from the hypervisor's thread when a domain went off."""
        job = self._jobs.get(instance)
        if job is not None and isinstance(job.action, _WAITING):
            job.signal.fail(message)
        self.wake()

    def _raise_when_stuck(self, view: ScaleSet, plan: Plan, now: datetime) -> None:
        """Nothing was done for long, and time alone will not change that."""
        if self._moved_at is None:
            self._moved_at = now
            return
        if view.upgrade is not None and view.upgrade.paused_at is not None:
            return  # its user knows; it goes on when the user says so
        patience = view.spec.upgrade_policy.health_timeout + _STUCK_AFTER
        if now - self._moved_at > patience and not any(hold.until for hold in plan.holds):
            raise TimedOutError(
                f"nothing moves in {self.name!r} any more",
                detail="; ".join(f"{hold.subject}: {hold.reason}" for hold in plan.holds[:5]),
                hint=f"look at: labctl show {self.name}, labctl doctor; then run it again",
            )

    def _time_to_wait(self, plan: Plan, now: datetime) -> timedelta:
        moments = [hold.until for hold in plan.holds if hold.until is not None]
        wait = min((moment - now for moment in moments), default=_LONGEST_WAIT)
        return min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT)

    def _rest(self, wait: timedelta, observer: Observer, version: int) -> None:
        """Wait until there may be something to decide.

        Health questions go on meanwhile: most answers say what the last one said, and to read the
        store and plan for each would be most of what waiting costs.
        """
        end = monotonic() + wait.total_seconds()  # a clock that is set back must not prolong it
        while True:
            left, due = end - monotonic(), observer.next_probe()
            if due is not None:
                left = min(left, (due - read_clock()).total_seconds())
            self._wake.wait(max(left, _SHORTEST_WAIT.total_seconds()))
            self._wake.clear()  # before the look at what it stands for
            if (
                self._has_news
                or monotonic() >= end
                or observer.hear(read_clock())
                or self.lab.database.find_version() != version
            ):
                return


def _concerns_one(error: LabError) -> bool:
    """Does it keep one instance from going on? Libvirt away or a full disk are of all."""
    return isinstance(error, InstanceHostError) or not isinstance(error, HostError)
