"""Time zones of the host as plain values."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, reset_tzpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.controller import zones
from labctl.controller.zones import find_zone_fault, find_zone_faults, load_clocks
from labctl.model.upgrade_policy import UpgradePolicy
from labctl.model.window import MaintenanceWindow, Shift
from tests.planner.world import make_spec

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
# Half an hour of summer time, none at all, a quarter hour, and a change far from midnight UTC.
ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu", "America/St_Johns")

try:
    ZoneInfo("Europe/Berlin")
except KeyError:
    pytest.skip("no time zone database here", allow_module_level=True)


def window(zone: str) -> MaintenanceWindow:
    return MaintenanceWindow(start="22:00", duration=timedelta(hours=2), time_zone=zone)


def clocks(*names: str, now: datetime = NOW):
    policy = UpgradePolicy(maintenance_windows=tuple(map(window, names)))
    return load_clocks(make_spec(1, upgrade_policy=policy), now)


def test_the_shifts_of_a_zone_are_found_to_the_second():
    assert clocks("Europe/Berlin")["Europe/Berlin"].shifts[1:] == (
        Shift(since=datetime(2026, 3, 29, 1, tzinfo=UTC), offset=timedelta(hours=2)),
        Shift(since=datetime(2026, 10, 25, 1, tzinfo=UTC), offset=timedelta(hours=1)),
    )


@given(st.sampled_from(ZONES), st.timedeltas(timedelta(days=-2), timedelta(days=390)))
def test_a_clock_shows_what_the_zone_says(name, ahead):
    moment = NOW + ahead
    clock = clocks(*ZONES)[name]
    shown = moment.astimezone(ZoneInfo(name)).replace(tzinfo=None)
    assert clock.read(moment) == shown
    first = shown.replace(tzinfo=ZoneInfo(name), fold=0).astimezone(UTC)
    assert clock.find(shown) == first


@given(st.sampled_from(ZONES), st.integers(0, 390 * 24 * 4))
def test_every_time_of_the_wall_clock_is_found(name, quarters):
    shown = NOW.replace(tzinfo=None) + timedelta(minutes=15) * quarters
    clock = clocks(*ZONES)[name]
    found = clock.find(shown)
    assert clock.read(found) == shown or clock.read(found) > shown > clock.read(
        found - timedelta(microseconds=1)
    )


def test_an_unknown_zone_has_no_clock_and_is_told_with_its_place():
    assert clocks("Mars/Olympus", "UTC").keys() == {"UTC"}
    ((place, fault),) = find_zone_faults((window("UTC"), window("Mars/Olympus")))
    assert place == 1
    assert "'Mars/Olympus' is no time zone" in fault


def test_a_directory_of_the_database_is_no_zone():
    assert "no time zone" in (find_zone_fault("Europe") or "")


def test_a_host_without_a_database_knows_utc_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(zones, "ZoneInfo", ZoneInfo.no_cache)
    reset_tzpath([tmp_path])
    try:
        assert find_zone_fault("UTC") is None
        assert "install it" in (find_zone_fault("Europe/Berlin") or "")
        later = NOW + timedelta(days=1)  # another day: not remembered
        assert clocks("Europe/Berlin", "UTC", now=later).keys() == {"UTC"}
    finally:
        reset_tzpath()
        zones._load_clock.cache_clear()
