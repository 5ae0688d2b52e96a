"""The daemon: one keeper for each scale set, woken when somebody asks for something."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

from labctl.controller.board import Board
from labctl.controller.clock import now as read_clock
from labctl.controller.follower import Follower
from labctl.controller.lab import Lab
from labctl.controller.lock import find_holder, try_lock
from labctl.controller.notifier import Notifier
from labctl.controller.platform import Platform, save_timing
from labctl.controller.reconciler import Listener, Reconciler
from labctl.drivers.service_manager import ServiceManager
from labctl.errors import LabError, RefusedError
from labctl.model.event import Event, EventKind
from labctl.model.plan import Action, Plan, ScaleSet
from labctl.planner import Timing
from labctl.store.events import find_last_event_id, load_events
from labctl.store.scale_sets import load_scale_sets

_GLANCE = timedelta(milliseconds=250)  # between two looks whether the store has changed
_SURVEY = timedelta(seconds=5)  # between two looks at everything, whatever has changed
_LOCK_NAME = "_serve"  # no scale set can have this name
_BACKOFF_FIRST = timedelta(seconds=1)
_BACKOFF_LONGEST = timedelta(seconds=60)

log = logging.getLogger(__name__)


class Watcher(Listener, Protocol):
    """Is told the story of the daemon."""

    def event(self, event: Event) -> None:
        """Something happened in a scale set."""

    def note(self, at: datetime, subject: str, message: str) -> None:
        """The daemon itself has something to say."""


@dataclass(slots=True)
class _Keeper:
    """A thread that works on one scale set whenever nobody else does."""

    name: str
    reconciler: Reconciler
    wake: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def nudge(self) -> None:
        """Look again at once, whatever it waits for."""
        self.wake.set()
        self.reconciler.wake()


class Daemon:
    """Works on every scale set of a lab until it is told to stop."""

    def __init__(
        self,
        lab: Lab,
        *,
        timing: Timing,
        watcher: Watcher,
        manager: ServiceManager,
        board: Board | None = None,
        beside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`board`: where the keepers pin up what they see. `beside`: what runs while it works."""
        self._lab = lab
        self._board = Board() if board is None else board
        self._timing = timing
        self._platform = Platform(lab, timing)
        self._watcher = watcher
        self._manager = manager
        self._beside = beside
        self._follower = Follower(lab.settings, lab.database, watcher.note)
        self._keepers: dict[str, _Keeper] = {}
        self._told = 0  # the newest event that was told

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what is half done then is finished, or goes on next time.

        Raises RefusedError when another daemon works in the same state directory, HostError when
        the store cannot be used.
        """
        with try_lock(self._lab.settings, _LOCK_NAME) as is_ours:
            if not is_ours:
                holder = find_holder(self._lab.settings, _LOCK_NAME)
                raise RefusedError(
                    f"another labctl serve works in {str(self._lab.settings.state_dir)!r}",
                    detail=f"its process id is {holder}" if holder else "",
                    hint="one is enough for all scale sets of a state directory",
                )
            save_timing(self._lab.database, self._timing)
            with self._lab.database.read() as connection:
                self._told = find_last_event_id(connection)
            with ExitStack() as stack:
                notifier = Notifier(self._lab.settings, self._lab.database)
                notifier.start()
                stack.callback(notifier.finish)  # last: it tells what the others do at their end
                stack.enter_context(self._beside())
                stack.callback(self._follower.join)
                stack.callback(self._stop_keepers)
                stack.callback(self._follower.stop)
                stack.callback(stop.set)  # whatever ends the watch: keepers must not go on alone
                self._follower.start()
                self._watch(stop)
                self._manager.stopping()

    def _watch(self, stop: threading.Event) -> None:
        is_ready = False
        surveyed_at: datetime | None = None
        with self._lab.database.changes() as has_changed:
            while not stop.is_set():
                now = read_clock()
                # A clock that was set back must not put the next survey off.
                is_due = surveyed_at is None or not timedelta(0) <= now - surveyed_at < _SURVEY
                if has_changed() or is_due:
                    surveyed_at = now
                    self._survey(stop)
                    self._board.note_survey()
                    status = f"{len(self._keepers)} scale sets"
                    if not is_ready:
                        self._manager.ready(status)
                        is_ready = True
                    self._manager.alive(status)
                stop.wait(_GLANCE.total_seconds())

    def _survey(self, stop: threading.Event) -> None:
        """Tell what is new, keep new scale sets, wake those that somebody asked something of."""
        with self._lab.database.read() as connection:
            names = {row.name for row in load_scale_sets(connection)}
            events = load_events(connection, after=self._told)
        asked = {e.scale_set for e in events if e.kind is EventKind.REQUEST}
        for event in events:
            self._watcher.event(event)
            self._told = event.id
        for name, keeper in list(self._keepers.items()):
            if keeper.thread is not None and not keeper.thread.is_alive():
                del self._keepers[name]
                self._board.remove(name)
            elif name in asked:
                keeper.nudge()
        for name in sorted(names - set(self._keepers)):
            self._keepers[name] = self._start_keeper(name, stop)

    def _start_keeper(self, name: str, stop: threading.Event) -> _Keeper:
        keeper = _Keeper(
            name=name,
            reconciler=Reconciler(
                self._lab,
                name,
                _HoldTeller(self._watcher, self._board),
                hook=self._platform.consider,
                stops=stop,
            ),
        )
        keeper.thread = threading.Thread(
            target=self._keep, args=(keeper, stop), name=f"keep-{name}"
        )
        keeper.thread.start()
        return keeper

    def _keep(self, keeper: _Keeper, stop: threading.Event) -> None:
        backoff = _BACKOFF_FIRST
        while not stop.is_set():
            keeper.wake.clear()
            began = monotonic()
            with try_lock(self._lab.settings, keeper.name) as is_ours:
                # A command that works on it lets go when it is through.
                trouble = self._work(keeper) if is_ours else None
            if monotonic() - began > _BACKOFF_LONGEST.total_seconds():
                backoff = _BACKOFF_FIRST  # it worked in between; what comes now is another trouble
            if is_ours and trouble is None:
                return
            if trouble is None:
                keeper.wake.wait(_GLANCE.total_seconds())
                continue
            text = str(trouble).replace("\n", "; ")
            again = f"trying again in {backoff.total_seconds():.0f} s"
            self._watcher.note(read_clock(), keeper.name, f"{text}; {again}")
            keeper.wake.wait(backoff.total_seconds())
            backoff = min(backoff * 2, _BACKOFF_LONGEST)

    def _work(self, keeper: _Keeper) -> Exception | None:
        """Until the daemon stops or the scale set is gone; the value is what came between."""
        old = keeper.reconciler
        keeper.reconciler = Reconciler(
            old.lab, old.name, old.listener, hook=old.hook, stops=old.stops
        )
        try:
            keeper.reconciler.run(_never)
        except LabError as error:
            log.debug("the work on %s was interrupted", keeper.name, exc_info=error)
            return error
        except Exception as error:
            # The other scale sets do not suffer from it, and a person must hear of it.
            log.exception("internal error in the work on %s", keeper.name)
            return RuntimeError(f"internal error, {type(error).__name__}: {error}")
        return None

    def _stop_keepers(self) -> None:
        for keeper in self._keepers.values():
            keeper.nudge()
        for keeper in self._keepers.values():
            if keeper.thread is not None:
                keeper.thread.join()
        with self._lab.database.read() as connection:
            for event in load_events(connection, after=self._told):
                self._watcher.event(event)


class _HoldTeller:
    """Tells what a whole scale set waits for, once, when it changes in kind; pins up the rest."""

    def __init__(self, watcher: Watcher, board: Board) -> None:
        self._watcher = watcher
        self._board = board
        self._last: str | None = None

    def update(self, scale_set: ScaleSet, plan: Plan, busy: dict[str, Action]) -> None:
        """After every turn of the loop."""
        self._board.put(scale_set, plan, at=read_clock())
        hold = next((h for h in plan.holds if h.subject == scale_set.name), None)
        # Seconds that count down are no news.
        kind = None if hold is None else hold.reason.split(",")[0]
        if hold is not None and kind != self._last:
            until = "" if hold.until is None else f", at {hold.until:%Y-%m-%d %H:%M:%S} UTC"
            self._watcher.note(read_clock(), scale_set.name, f"waits: {hold.reason}{until}")
        self._last = kind
        self._watcher.update(scale_set, plan, busy)


def _never(scale_set: ScaleSet | None, plan: Plan, now: datetime) -> None:
    """Work on."""
