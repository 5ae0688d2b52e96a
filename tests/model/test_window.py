"""Maintenance windows by the wall clock of their zone, also where clocks are changed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from labctl.model.window import (
    UTC_CLOCK,
    MaintenanceWindow,
    Opening,
    Shift,
    Weekday,
    ZoneClock,
    find_next_opening,
    find_openings,
    is_open,
)

HOUR = timedelta(hours=1)
BERLIN = ZoneClock(
    shifts=(
        Shift(since=datetime(2025, 10, 26, 1, tzinfo=UTC), offset=HOUR),
        Shift(since=datetime(2026, 3, 29, 1, tzinfo=UTC), offset=2 * HOUR),
        Shift(since=datetime(2026, 10, 25, 1, tzinfo=UTC), offset=HOUR),
    )
)
CLOCKS = {"Europe/Berlin": BERLIN, "UTC": UTC_CLOCK}


def window(start="22:00", duration=2 * HOUR, zone="Europe/Berlin", **changes) -> MaintenanceWindow:
    return MaintenanceWindow(start=start, duration=duration, time_zone=zone, **changes)


def at(day: int, hour: int, minute: int = 0, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def test_a_window_is_open_from_its_start_until_just_before_its_end():
    windows = (window(),)  # 21:00 to 23:00 UTC
    moments = [at(5, 20, 59), at(5, 21), at(5, 22, 59), at(5, 23)]
    assert [is_open(windows, CLOCKS, moment) for moment in moments] == [False, True, True, False]
    assert find_next_opening(windows, CLOCKS, at(5, 21)) == at(6, 21)


def test_without_windows_it_is_always_open():
    assert is_open((), CLOCKS, at(5, 3))


def test_the_day_is_that_of_the_start_in_the_zone():
    # 00:30 on Monday in Berlin is Sunday in UTC.
    windows = (window("00:30", days=(Weekday.MON,)),)
    assert find_next_opening(windows, CLOCKS, at(4, 12)) == at(4, 23, 30)
    assert is_open(windows, CLOCKS, at(5, 1))
    assert find_next_opening(windows, CLOCKS, at(5, 12)) == at(11, 23, 30)


def test_a_window_over_midnight_is_open_on_the_next_day():
    windows = (window("23:00", 24 * HOUR, days=(Weekday.FRI,)),)
    assert is_open(windows, CLOCKS, at(3, 21, 59))  # Saturday
    assert not is_open(windows, CLOCKS, at(3, 22))


def test_the_wall_clock_holds_in_summer_and_winter():
    windows = (window(),)
    assert find_next_opening(windows, CLOCKS, at(28, 12, month=3)) == at(28, 21, month=3)
    assert find_next_opening(windows, CLOCKS, at(29, 12, month=3)) == at(29, 20, month=3)


def test_a_start_that_clocks_jump_over_begins_at_the_jump():
    windows = (window("02:30", HOUR),)
    found = find_openings(windows, CLOCKS, at(29, 0, month=3))
    assert found[0] == Opening(begins=at(29, 1, month=3), ends=at(29, 2, month=3))
    assert found[1].begins == at(30, 0, 30, month=3)


def test_a_start_that_clocks_show_twice_begins_once_at_the_first():
    windows = (window("02:30", timedelta(minutes=30)),)
    found = find_openings(windows, CLOCKS, at(25, 0, month=10))
    assert [each.begins for each in found[:2]] == [at(25, 0, 30, month=10), at(26, 1, 30, month=10)]


def test_a_window_over_a_change_of_the_clocks_keeps_its_length():
    windows = (window("01:00", 3 * HOUR),)
    (first, *_) = find_openings(windows, CLOCKS, at(29, 0, month=3))
    assert (first.begins, first.ends) == (at(29, 0, month=3), at(29, 3, month=3))


def test_windows_of_several_zones_and_overlapping_ones_come_in_order():
    windows = (window(zone="UTC"), window(), window())
    found = find_openings(windows, CLOCKS, at(5, 12))
    assert [each.begins for each in found[:2]] == [at(5, 21), at(5, 22)]


def test_a_zone_without_a_clock_never_opens():
    windows = (window(zone="Mars/Olympus"),)
    assert not is_open(windows, CLOCKS, at(5, 22))
    assert find_next_opening(windows, CLOCKS, at(5, 22)) is None


windows_of_berlin = st.lists(
    st.builds(
        window,
        start=st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from((0, 15, 30))),
        duration=st.timedeltas(timedelta(minutes=30), 24 * HOUR),
        zone=st.sampled_from(tuple(CLOCKS)),
        days=st.lists(st.sampled_from(tuple(Weekday)), min_size=1, unique=True).map(tuple),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
moments = st.timedeltas(timedelta(0), timedelta(days=364)).map(
    lambda later: datetime(2026, 1, 1, tzinfo=UTC) + later
)


@given(windows_of_berlin, moments)
def test_the_next_opening_opens_and_none_comes_before(windows, now):
    following = find_next_opening(windows, CLOCKS, now)
    assert following is not None
    assert now < following <= now + timedelta(days=8, hours=1)
    assert is_open(windows, CLOCKS, following)
    if not is_open(windows, CLOCKS, now):
        between = now + (following - now) / 2
        assert not is_open(windows, CLOCKS, between)
        assert find_next_opening(windows, CLOCKS, between) == following


@given(windows_of_berlin, moments)
def test_where_it_is_open_the_clocks_show_a_time_of_the_window(windows, now):
    for window_ in windows:
        for opening in find_openings((window_,), CLOCKS, now):
            shown = CLOCKS[window_.time_zone].read(opening.begins)
            is_jump = opening.begins == at(29, 1, month=3)
            assert f"{shown:%H:%M}" == window_.start or is_jump
            assert tuple(Weekday)[shown.weekday()] in window_.days
            assert opening.ends - opening.begins == window_.duration


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "24:00"},
        {"start": "9:00"},
        {"start": "09:60"},
        {"duration": "29m"},
        {"duration": "25h"},
        {"timeZone": "../etc/passwd"},
        {"timeZone": "/etc/localtime"},
        {"timeZone": ""},
        {"days": []},
        {"days": ["Mon", "Mon"]},
        {"days": ["Monday"]},
        {"end": "23:00"},
    ],
)
def test_what_is_no_window_is_refused(changes):
    values = {"start": "22:00", "duration": "2h", "timeZone": "Europe/Berlin"} | changes
    with pytest.raises(ValidationError):
        MaintenanceWindow.model_validate(values)
