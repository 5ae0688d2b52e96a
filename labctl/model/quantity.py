"""Durations and sizes as people write them in specs."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIMPLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_SIMPLE_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ISO = re.compile(
    r"P(?=.)(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?",
)
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)")
_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

_LONGEST = 40  # characters; no sensible quantity is longer

DURATION_RULE = 'a duration such as "30s", "5m", "1h30m" or ISO 8601 "PT5M"'
SIZE_RULE = 'a size with its unit, such as "512MiB" or "10GiB"'


def parse_duration(value: object) -> timedelta:
    """Read `30s`, `5m`, `1h30m`, `250ms` or ISO 8601 `PT5M`. Raises ValueError with the rule."""
    try:
        return _parse_duration(value)
    except OverflowError as error:
        raise ValueError(f"must be {DURATION_RULE}; this is too long") from error


def _parse_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and len(value) <= _LONGEST:
        if _SIMPLE.fullmatch(value):
            seconds = sum(
                float(number) * _UNITS[unit] for number, unit in _SIMPLE_PART.findall(value)
            )
            return timedelta(seconds=seconds)
        match = _ISO.fullmatch(value)
        if match:
            days, hours, minutes, seconds_text = match.groups()
            return timedelta(
                days=int(days or 0),
                hours=int(hours or 0),
                minutes=int(minutes or 0),
                seconds=float(seconds_text or 0),
            )
    raise ValueError(f"must be {DURATION_RULE}")


def format_duration(value: timedelta) -> str:
    """Write a duration that `parse_duration` reads back, for example `1h30m`."""
    total = value.total_seconds()
    if total != int(total):
        return f"{round(total * 1000)}ms"
    text = ""
    rest = int(total)
    for unit, seconds in (("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, seconds)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_size(value: object) -> int:
    """Read `512MiB` as bytes. Raises ValueError with the rule; bare numbers are refused."""
    if isinstance(value, str) and len(value) <= _LONGEST:
        match = _SIZE.fullmatch(value)
        if match:
            return int(match.group(1)) * _SIZE_UNITS[match.group(2)]
    raise ValueError(f"must be {SIZE_RULE}")


def format_size(value: int) -> str:
    """Write bytes with the largest unit that divides them, for example `512MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit]
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}B"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "description": DURATION_RULE}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*(B|KiB|MiB|GiB|TiB)$"}),
]
