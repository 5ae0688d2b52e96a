"""Asks instances for their health, each at its own pace, and turns answers into verdicts."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from labctl.drivers.probe import ProbeResult, ProbeTarget, check
from labctl.model.instance import Health, HealthState

KEPT_SAMPLES = 40  # per instance, for the evidence of a failure
_UNREACHABLE_IN_A_ROW = 3  # a busy emulated guest may miss one or two
# Pace until the verdict is Healthy: twice a second at first, then each time a tenth longer, so that
# an answer is at most a tenth late and a long wait costs little.
_FAST = timedelta(milliseconds=500)
_SLOWING = 0.1
_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer."""

    at: datetime
    state: HealthState
    detail: str


@dataclass(slots=True)
class _Watched:
    target: ProbeTarget
    interval: timedelta
    needed: int  # equal answers in a row that change the verdict
    generation: int
    stored: Health  # the verdict that was told last
    health: Health
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    streak: int = 0
    is_judged: bool = False  # have enough answers come for a verdict?
    has_been_healthy: bool = False
    streak_began_at: datetime | None = None
    due: datetime | None = None  # None: at once
    asked: Future[ProbeResult] | None = None
    asked_at: datetime | None = None


class Prober:
    """The loop alone calls it, but for `forget`; the questions run in threads."""

    def __init__(self, pool: ThreadPoolExecutor, wake: Callable[[], None]) -> None:
        """`wake` is called from a worker when an answer has come."""
        self.has_turned = False  # did the last step change a verdict, also back to the stored one?
        self._pool = pool
        self._wake = wake
        self._watched: dict[str, _Watched] = {}

    def watch(
        self,
        instance: str,
        target: ProbeTarget,
        *,
        generation: int,
        interval: timedelta,
        needed: int,
        known: Health,
    ) -> None:
        """Ask this instance from now on; a new generation, or another question, starts anew."""
        watched = self._watched.get(instance)
        asks = (target, generation, interval, needed)
        if watched is None or asks != (
            watched.target,
            watched.generation,
            watched.interval,
            watched.needed,
        ):
            self._watched[instance] = _Watched(
                target=target,
                interval=interval,
                needed=needed,
                generation=generation,
                stored=known,
                health=replace(known, state=HealthState.INITIALIZING, detail="not asked yet"),
            )

    def forget(self, instance: str) -> None:
        """Ask no more; the next `watch` starts anew."""
        self._watched.pop(instance, None)

    def samples(self, instance: str) -> tuple[Sample, ...]:
        """The latest answers, oldest first."""
        watched = self._watched.get(instance)
        return tuple(watched.samples) if watched else ()

    def health(self, instance: str) -> Health | None:
        """The present verdict of an instance that is being asked."""
        watched = self._watched.get(instance)
        return watched.health if watched else None

    def next_due(self) -> datetime | None:
        """When the next question is due; None when none is, or one is due already."""
        return min(
            (w.due for w in list(self._watched.values()) if w.asked is None and w.due is not None),
            default=None,
        )

    @property
    def has_open(self) -> bool:
        """Is there an instance without enough answers for a first verdict?"""
        return any(not w.is_judged for w in list(self._watched.values()))

    def await_answers(self, patience: timedelta) -> None:
        """Wait until every question that was asked is answered."""
        asked = [w.asked for w in list(self._watched.values()) if w.asked is not None]
        wait(asked, timeout=patience.total_seconds())

    def step(self, now: datetime) -> dict[str, Health]:
        """Take in the answers, ask what is due; returns the verdicts that changed."""
        changed: dict[str, Health] = {}
        self.has_turned = False
        # A copy: an action that switches an instance on forgets it, in another thread.
        for instance, watched in list(self._watched.items()):
            if watched.asked is not None and watched.asked.done():
                before = watched.health
                self._take(watched, watched.asked.result(), now)
                self.has_turned = self.has_turned or watched.health != before
                is_known = watched.health.state is HealthState.INITIALIZING or (
                    replace(watched.stored, since=watched.health.since) == watched.health
                )
                if not is_known:
                    watched.stored = changed[instance] = watched.health
            # No question is further away than the interval, unless the clock was set back.
            is_due = watched.due is None or not now < watched.due <= now + watched.interval
            if watched.asked is None and is_due:
                watched.asked = self._pool.submit(check, watched.target, timeout=_TIMEOUT)
                watched.asked_at = now
                watched.asked.add_done_callback(lambda _: self._wake())
        return changed

    def _take(self, watched: _Watched, result: ProbeResult, now: datetime) -> None:
        watched.asked = None
        last = watched.samples[-1].state if watched.samples else None
        watched.streak = watched.streak + 1 if result.state is last else 1
        if watched.streak == 1 or watched.streak_began_at is None:
            watched.streak_began_at = now
        watched.samples.append(Sample(at=now, state=result.state, detail=result.detail))
        needed = watched.needed
        if result.is_silence:
            needed = max(needed, _UNREACHABLE_IN_A_ROW)
        watched.is_judged = watched.is_judged or watched.streak >= needed
        # Who does not answer has taken nothing back.
        metrics = watched.stored.custom_metrics if result.is_silence else result.custom_metrics
        told = replace(
            watched.health, state=result.state, detail=result.detail, custom_metrics=metrics
        )
        if watched.streak >= needed and watched.health != told:
            same = watched.stored.state is result.state
            since = watched.stored.since if same else None
            watched.health = replace(told, since=since or now)
        is_healthy = watched.health.state is HealthState.HEALTHY
        watched.has_been_healthy = watched.has_been_healthy or is_healthy
        pace = min(max(_FAST, (now - watched.streak_began_at) * _SLOWING), watched.interval)
        # 3 probes, 10 s apart: who was healthy is unhealthy after 20 s without a good answer, not
        # after the second that three hasty questions take; and well again after as long.
        is_counting = watched.has_been_healthy and watched.streak < needed and not result.is_silence
        is_steady = is_healthy and watched.streak >= needed
        watched.due = now + (watched.interval if is_steady or is_counting else pace)
