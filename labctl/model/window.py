"""Maintenance windows: wall-clock times in a time zone, and when they are open.

The rules of a zone come in as plain values (`ZoneClock`), so that nothing here reads a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from labctl.model import spec_rules as rules
from labctl.model.quantity import Duration
from labctl.model.strict import Strict

START_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
UTC_NAME = "UTC"
_DAY = timedelta(days=1)
_LOOK_AHEAD = 9  # days: from any moment, a window that opens once a week opens within eight


class Weekday(StrEnum):
    """A day of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


class MaintenanceWindow(Strict):
    """A time, on some days of the week, at which batches may begin."""

    days: tuple[Annotated[Weekday, Field(strict=False)], ...] = Field(
        default=tuple(Weekday),
        min_length=1,
        strict=False,
        description="On which it opens, in its time zone",
    )
    start: str = Field(pattern=START_PATTERN, description="HH:MM on the clocks of the time zone")
    duration: Duration = Field(ge=timedelta(minutes=30), le=timedelta(hours=24))
    time_zone: str = Field(
        default=UTC_NAME,
        pattern=ZONE_PATTERN,
        max_length=64,
        description="A name of the IANA database, such as Europe/Berlin",
    )

    @field_validator("days")
    @classmethod
    def _require_distinct_days(cls, days: tuple[Weekday, ...]) -> tuple[Weekday, ...]:
        repeated = [at for at, day in enumerate(days) if day in days[:at]]
        rules.require([((at,), f"{days[at].value!r} is named twice") for at in repeated])
        return days


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """From `since` on, the clocks of a zone are `offset` ahead of UTC."""

    since: datetime
    offset: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneClock:
    """How the clocks of a time zone go; the first shift holds for all time before, too."""

    shifts: tuple[Shift, ...]  # in order; at least one

    def read(self, moment: datetime) -> datetime:
        """What the clocks show at `moment`, without a zone."""
        offset = self.shifts[0].offset
        for shift in self.shifts:
            if shift.since <= moment:
                offset = shift.offset
        return (moment.astimezone(UTC) + offset).replace(tzinfo=None)

    def find(self, shown: datetime) -> datetime:
        """The first moment at which the clocks show `shown`, or jump over it."""
        # Berlin, 25 October: 02:30 is shown twice, 00:30 and 01:30 UTC; the first is meant.
        # 29 March: clocks jump from 02:00 to 03:00 at 01:00 UTC; 02:30 is taken for that moment.
        for at, shift in enumerate(self.shifts):
            moment = (shown - shift.offset).replace(tzinfo=UTC)
            if at > 0 and moment < shift.since:
                return shift.since
            if at + 1 == len(self.shifts) or moment < self.shifts[at + 1].since:
                return moment
        raise AssertionError("a clock without shifts")


UTC_CLOCK = ZoneClock(shifts=(Shift(since=datetime.min.replace(tzinfo=UTC), offset=timedelta(0)),))
Clocks = Mapping[str, ZoneClock]  # by the name of the zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One time that a window is open; `ends` is outside."""

    begins: datetime  # UTC
    ends: datetime


def find_openings(
    windows: Sequence[MaintenanceWindow], clocks: Clocks, now: datetime
) -> tuple[Opening, ...]:
    """What is open at `now` and what opens within the next days, by time.

    A window of a zone without a clock never opens.
    """
    found: set[tuple[datetime, datetime]] = set()
    for window in windows:
        clock = clocks.get(window.time_zone)
        if clock is None:
            continue
        hour, minute = map(int, window.start.split(":"))
        # One that opened two days ago may still be open: 24 hours, and the clocks were shifted.
        first = clock.read(now).date() - 2 * _DAY
        for days in range(_LOOK_AHEAD + 3):
            day: date = first + days * _DAY
            if tuple(Weekday)[day.weekday()] not in window.days:
                continue
            begins = clock.find(datetime.combine(day, time(hour, minute)))
            if begins + window.duration > now:
                found.add((begins, begins + window.duration))
    return tuple(Opening(begins=begins, ends=ends) for begins, ends in sorted(found))


def is_open(windows: Sequence[MaintenanceWindow], clocks: Clocks, now: datetime) -> bool:
    """May a batch begin at `now`? Without windows always."""
    return not windows or any(each.begins <= now for each in find_openings(windows, clocks, now))


def find_next_opening(
    windows: Sequence[MaintenanceWindow], clocks: Clocks, now: datetime
) -> datetime | None:
    """When the next window opens after `now`."""
    later = [each.begins for each in find_openings(windows, clocks, now) if each.begins > now]
    return min(later, default=None)
