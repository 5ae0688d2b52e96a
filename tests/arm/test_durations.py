"""Lengths of time in ISO 8601."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.durations import format_iso, parse_iso


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=9999)))
def test_what_is_written_is_read_exactly(value):
    assert parse_iso(format_iso(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "PT0S"),
        (timedelta(minutes=90), "PT1H30M"),
        (timedelta(days=1, milliseconds=1500), "PT24H1.5S"),
    ],
)
def test_hours_are_the_largest_unit(value, text):
    assert format_iso(value) == text


@pytest.mark.parametrize("text", ["", "P", "PT", "5m", "PT5", "-PT5M", "PT5M ", "P1Y", "PT1H" * 20])
def test_what_is_no_length_of_time_is_none(text):
    assert parse_iso(text) is None


def test_days_and_too_much():
    assert parse_iso("P1DT1H") == timedelta(hours=25)
    assert parse_iso("P999999DT99999999H") == timedelta(days=999999, hours=99999999)
