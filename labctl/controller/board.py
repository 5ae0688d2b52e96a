"""What the keepers saw last, for those who only want to know: nobody waits for a hypervisor."""

import threading
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from labctl.model.plan import Plan, ScaleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look at a scale set with its domains and health."""

    view: ScaleSet
    plan: Plan
    at: datetime


class Board:
    """The latest look at each scale set. Safe to share between threads."""

    def __init__(self) -> None:
        self._sights: dict[str, Sight] = {}
        self._changed = threading.Condition()
        self._version = 0
        self._surveyed_at: float | None = None

    def note_survey(self) -> None:
        """The daemon has just looked at everything; it does so every few seconds."""
        self._surveyed_at = monotonic()

    @property
    def survey_age(self) -> float | None:
        """Seconds since the daemon looked at everything; None: it has not done so yet."""
        return None if self._surveyed_at is None else monotonic() - self._surveyed_at

    @property
    def version(self) -> int:
        """A number that grows whenever something looks otherwise than before."""
        return self._version

    def put(self, view: ScaleSet, plan: Plan, *, at: datetime) -> None:
        """Pin up what was just seen."""
        with self._changed:
            before = self._sights.get(view.name)
            self._sights[view.name] = Sight(view=view, plan=plan, at=at)
            # The moment alone, and the seconds that a hold counts down, are no news.
            if before is None or before.view != view:
                self._version += 1
                self._changed.notify_all()

    def remove(self, name: str) -> None:
        """Take down what was seen of a scale set that is gone."""
        with self._changed:
            if self._sights.pop(name, None) is not None:
                self._version += 1
                self._changed.notify_all()

    def find(self, name: str) -> Sight | None:
        """The latest look, however old; None: there was none yet."""
        with self._changed:
            return self._sights.get(name)

    def wait(self, after: int, timeout: float) -> int:
        """Wait until the version is above `after`, at most so many seconds; returns it."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > after, timeout)
            return self._version
