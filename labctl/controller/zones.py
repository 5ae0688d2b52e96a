"""Reads time zones of the host, and hands them on as plain values."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from labctl.model.spec import ScaleSetSpec
from labctl.model.window import (
    UTC_CLOCK,
    UTC_NAME,
    Clocks,
    MaintenanceWindow,
    Shift,
    ZoneClock,
)

_BEFORE = timedelta(days=4)  # windows that are still open began then at the earliest
_AHEAD = timedelta(days=400)  # a preview looks that far; later, the last shift is taken to hold
_STEP = timedelta(hours=12)  # no zone has two shifts within one
_ALWAYS_THERE = "Europe/London"  # of every copy of the database


def load_clocks(spec: ScaleSetSpec, now: datetime) -> Clocks:
    """The clock of every zone that the spec names and the host knows."""
    names = {window.time_zone for window in spec.upgrade_policy.maintenance_windows}
    clocks = {name: _load_clock(name, now.astimezone(UTC).date()) for name in sorted(names)}
    return {name: clock for name, clock in clocks.items() if clock is not None}


def find_zone_faults(windows: Sequence[MaintenanceWindow]) -> list[tuple[int, str]]:
    """The windows whose zone is not known here: place, and what is wrong."""
    return [
        (place, fault)
        for place, window in enumerate(windows)
        if (fault := find_zone_fault(window.time_zone)) is not None
    ]


def find_zone_fault(name: str) -> str | None:
    """Why windows cannot be in this time zone; None: they can."""
    if name == UTC_NAME or _read(name) is not None:
        return None
    if _read(_ALWAYS_THERE) is None:
        return (
            f"{name!r} cannot be looked up: this host has no time zone database; install it "
            "(apt-get install tzdata), or use 'UTC'"
        )
    return f"{name!r} is no time zone of the IANA database; an example is 'Europe/Berlin'"


def _read(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(maxsize=64)
def _load_clock(name: str, today: date) -> ZoneClock | None:
    if name == UTC_NAME:
        return UTC_CLOCK
    zone = _read(name)
    if zone is None:
        return None
    moment = datetime.combine(today, time(), tzinfo=UTC) - _BEFORE
    end = moment + _BEFORE + _AHEAD
    shifts = [Shift(since=moment, offset=_offset(zone, moment))]
    while moment < end:
        later = moment + _STEP
        if _offset(zone, later) != shifts[-1].offset:
            shifts.append(_find_shift(zone, moment, later))
        moment = later
    return ZoneClock(shifts=tuple(shifts))


def _find_shift(zone: ZoneInfo, before: datetime, after: datetime) -> Shift:
    """The second at which the offset changes, by halving."""
    old = _offset(zone, before)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return Shift(since=after, offset=_offset(zone, after))


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)
