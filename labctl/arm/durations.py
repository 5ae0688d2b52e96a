"""Lengths of time as Azure writes them: ISO 8601."""

import re
from datetime import timedelta

_ISO = re.compile(
    r"P(?=.)(?:(\d{1,6})D)?(?:T(?=\d)(?:(\d{1,8})H)?(?:(\d{1,10})M)?(?:(\d{1,12})(?:\.(\d{1,6})\d*)?S)?)?",
    re.ASCII,
)
_LONGEST = 40  # characters


def parse_iso(text: str) -> timedelta | None:
    """Read `PT1H30M` or `P1DT0.5S`; None: it is no such length of time."""
    match = _ISO.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    days, hours, minutes, seconds, fraction = match.groups(default="")
    try:
        return timedelta(
            days=int(days or 0),
            hours=int(hours or 0),
            minutes=int(minutes or 0),
            seconds=int(seconds or 0),
            microseconds=int(fraction.ljust(6, "0")),
        )
    except OverflowError:
        return None


def format_iso(value: timedelta) -> str:
    """Write a length of time exactly, with hours as the largest unit: `PT1H30M`, `PT0S`."""
    total = value.days * 86400 + value.seconds
    hours, rest = divmod(total, 3600)
    minutes, seconds = divmod(rest, 60)
    text = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M")) if count)
    if value.microseconds:
        text += f"{seconds}.{value.microseconds:06}".rstrip("0") + "S"
    elif seconds or not text:
        text += f"{seconds}S"
    return f"PT{text}"
