"""What happened, for people and logs."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class EventKind(StrEnum):
    """What an event is about."""

    REQUEST = "request"  # a person asked for something
    DECISION = "decision"  # the planner decided
    STEP = "step"  # something was done
    RUNG = "rung"  # an instance got further on its way to healthy
    HEALTH = "health"  # a verdict changed
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of history."""

    id: int
    at: datetime
    scale_set: str
    instance: str | None
    upgrade: int | None
    kind: EventKind
    message: str
    detail: str = ""  # several lines, for example the end of the serial console
    topic: str = ""  # what receivers of notifications choose by; never empty where it was loaded

    @property
    def subject(self) -> str:
        """What a line begins with: the instance, or else the scale set."""
        return self.instance or self.scale_set
