"""Works on a scale set until a goal is reached, or watches another process do it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from labctl.controller.clock import now
from labctl.controller.goal import Goal, Outcome
from labctl.controller.lab import Lab
from labctl.controller.lock import find_holder, try_lock
from labctl.controller.observe import Observer
from labctl.controller.reconciler import Listener, Reconciler
from labctl.errors import NotFoundError, TimedOutError
from labctl.model.plan import Plan, ScaleSet
from labctl.planner import plan as make_plan
from labctl.store.scale_sets import get_scale_set

Look = Callable[[], tuple[ScaleSet | None, Plan]]

_LOOK_AGAIN = timedelta(milliseconds=500)
_HEALTH_WAIT = timedelta(seconds=20)  # three health questions without an answer, and a little


class Spectator(Listener, Protocol):
    """A listener that is also told when another process does the work."""

    def watching(self, holder: int | None) -> None:
        """Another process controls the scale set."""


def work_until(
    lab: Lab,
    scale_set: str,
    goal: Goal,
    *,
    listener: Spectator,
    deadline: timedelta | None = None,
) -> Outcome:
    """Reach `goal`, here or by watching the process that controls `scale_set`.

    Raises TimedOutError at the deadline and HostError as `Reconciler.run` does.
    """
    started = now()
    pause = threading.Event()
    while True:
        with try_lock(lab.settings, scale_set) as is_ours:
            if is_ours:
                left = None if deadline is None else deadline - (now() - started)
                return Reconciler(lab, scale_set, listener).run(goal, deadline=left)
        listener.watching(find_holder(lab.settings, scale_set))
        with watching(lab, scale_set) as look:
            while True:
                view, plan = look()
                if view is not None:
                    listener.update(view, plan, {})
                outcome = goal(view, plan, now())
                if outcome is not None:
                    return outcome
                if deadline is not None and now() - started > deadline:
                    raise TimedOutError(
                        f"{scale_set!r} is not there yet after {deadline.total_seconds():.0f} s",
                        detail="another labctl process works on it",
                        hint="run the same command again to go on watching",
                    )
                pause.wait(_LOOK_AGAIN.total_seconds())
                with try_lock(lab.settings, scale_set) as is_free:
                    if is_free:
                        break


def look_once(lab: Lab, scale_set: str) -> tuple[ScaleSet, Plan]:
    """The facts of now with a fresh answer of every health source. Changes nothing.

    Raises NotFoundError when there is no such scale set, HostError when libvirt does not answer.
    """
    with watching(lab, scale_set) as look:
        view, plan = look()
        if view is None:
            with lab.database.read() as connection:
                get_scale_set(connection, scale_set)  # tells what there is
            raise NotFoundError(f"scale set {scale_set!r} does not exist", hint="run: labctl list")
        return view, plan


@contextmanager
def watching(lab: Lab, scale_set: str) -> Iterator[Look]:
    """Look at a scale set again and again, without acting and without writing."""
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="look") as pool:
        observer = Observer(lab, scale_set, pool, lambda: None, writes=False)

        def look() -> tuple[ScaleSet | None, Plan]:
            view = observer.observe_answered(_HEALTH_WAIT)
            return view, Plan() if view is None else make_plan(view, now())

        yield look
