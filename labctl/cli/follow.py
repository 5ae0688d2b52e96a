"""Runs the controller for a command and shows what happens meanwhile."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from labctl.cli.context import Context, open_store
from labctl.cli.describe import describe_action, describe_health
from labctl.cli.progress import Progress, StatusRow, open_progress
from labctl.controller.clock import now
from labctl.controller.goal import Goal, Outcome
from labctl.controller.lab import Lab, open_lab
from labctl.controller.notifier import notifying
from labctl.controller.work import work_until
from labctl.errors import LabError
from labctl.model.event import EventKind
from labctl.model.plan import (
    Action,
    Plan,
    ScaleSet,
)
from labctl.store.database import Database
from labctl.store.events import find_last_event_id, load_events


@contextmanager
def opened_store(context: Context) -> Iterator[Database]:
    """The store, closed at the end."""
    with closing(open_store(context.settings)) as database:
        yield database


@contextmanager
def opened_lab(context: Context) -> Iterator[Lab]:
    """The lab: store, hypervisor, what the host can do."""
    with opened_store(context) as database, closing(open_lab(context.settings, database)) as lab:
        yield lab


class UnsuccessfulError(LabError):
    """The work ended, and not as it was wished."""


def follow(
    context: Context,
    lab: Lab,
    scale_set: str,
    goal: Goal,
    *,
    deadline: timedelta | None = None,
    since: int | None = None,
) -> Outcome:
    """Work until the goal, with progress; `since` is the event after which to begin the story.

    Raises UnsuccessfulError when the goal cannot be reached.
    """
    if since is None:
        since = last_event(lab.database)
    with closing(open_progress(context)) as progress:
        teller = _Teller(lab.database, scale_set, progress, last=since)
        with notifying(lab.settings, lab.database):
            try:
                outcome = work_until(lab, scale_set, goal, listener=teller, deadline=deadline)
            finally:
                teller.tell_events()
    if not outcome.succeeded:
        raise UnsuccessfulError(f"{scale_set}: {outcome.message}", hint=outcome.hint)
    return outcome


def last_event(database: Database) -> int:
    """The id of the newest event."""
    with database.read() as connection:
        return find_last_event_id(connection)


def has_worked(database: Database, scale_set: str, since: int) -> bool:
    """Was anything decided or done after that event? What was only looked at does not count."""
    with database.read() as connection:
        events = load_events(connection, after=since, scale_set=scale_set)
    return any(event.kind not in {EventKind.HEALTH, EventKind.REQUEST} for event in events)


@dataclass(slots=True)
class _Teller:
    """Passes events and the state of every instance on to the display."""

    database: Database
    scale_set: str
    progress: Progress
    last: int
    _doing: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def update(self, scale_set: ScaleSet, plan: Plan, busy: dict[str, Action]) -> None:
        """Tell what is new."""
        self.tell_events()
        moment = now()
        holds = {hold.subject: hold.reason for hold in plan.holds}
        rows = []
        for instance in scale_set.instances:
            action = busy.get(instance.name)
            doing = describe_action(action) if action else holds.get(instance.name, "")
            known = self._doing.get(instance.name)
            # The seconds that a hold counts down are no news.
            kind = type(action).__name__ if action else doing.split(",")[0]
            if known is None or known[0] != kind:
                known = (kind, moment)
                self._doing[instance.name] = known
            rows.append(
                StatusRow(
                    instance=instance.name,
                    version=instance.current.image_version,
                    power=instance.domain.power.value,
                    health=describe_health(instance, scale_set),
                    doing=doing,
                    since=known[1],
                )
            )
        self.progress.status(rows)

    def watching(self, holder: int | None) -> None:
        """Tell that another process does the work."""
        who = f"process {holder}" if holder else "another labctl process"
        self.progress.event(now(), self.scale_set, "note", f"{who} works on it; watching")

    def tell_events(self) -> None:
        """Print the events that came since the last time."""
        with self.database.read() as connection:
            events = load_events(connection, after=self.last, scale_set=self.scale_set)
        for event in events:
            self.progress.event(event.at, event.subject, event.kind.value, event.message)
            self.last = event.id
