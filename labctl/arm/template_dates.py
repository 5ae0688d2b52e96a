"""Functions of templates on moments: `utcNow` and `dateTimeAdd`."""

import calendar
import re
from datetime import UTC, datetime, timedelta

from labctl.arm.template_fault import Fault

_DURATION = re.compile(
    r"(?P<sign>-?)P(?:(?P<years>\d{1,4})Y)?(?:(?P<months>\d{1,5})M)?(?:(?P<weeks>\d{1,6})W)?"
    r"(?:(?P<days>\d{1,7})D)?"
    r"(?:T(?:(?P<hours>\d{1,8})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9})S)?)?"
)
_PART = re.compile(r"yyyy|yy|MM|M|dd|d|HH|H|mm|m|ss|s|f{1,7}|'[^']*'|[TZ]|[^A-Za-z']")
_WHOLE = {
    "": "yyyyMMddTHHmmssZ",
    "u": "yyyy-MM-dd HH:mm:ssZ",
    "s": "yyyy-MM-ddTHH:mm:ss",
    "o": "yyyy-MM-ddTHH:mm:ss.fffffffZ",
    "O": "yyyy-MM-ddTHH:mm:ss.fffffffZ",
    "d": "M/d/yyyy",
}


def format_moment(moment: datetime, form: str = "") -> str:
    """A moment in the format that templates give, such as yyyy-MM-dd."""
    utc = moment.astimezone(UTC)
    form = _WHOLE.get(form, form)
    values = {
        "yyyy": f"{utc.year:04d}",
        "yy": f"{utc.year % 100:02d}",
        "MM": f"{utc.month:02d}",
        "M": str(utc.month),
        "dd": f"{utc.day:02d}",
        "d": str(utc.day),
        "HH": f"{utc.hour:02d}",
        "H": str(utc.hour),
        "mm": f"{utc.minute:02d}",
        "m": str(utc.minute),
        "ss": f"{utc.second:02d}",
        "s": str(utc.second),
    }
    parts: list[str] = []
    at = 0
    while at < len(form):
        part = _PART.match(form, at)
        if part is None:
            raise Fault(f"the lab's formats of time do not know '{form[at : at + 10]}'")
        text = part[0]
        at = part.end()
        if text[0] == "f":
            parts.append(f"{utc.microsecond:06d}0"[: len(text)])
        else:
            parts.append(values.get(text, text.strip("'")))
    return "".join(parts)


def read_moment(text: str) -> datetime:
    """A moment as templates write it, or a Fault."""
    try:
        if re.fullmatch(r"\d{8}T\d{6}Z", text):
            return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Fault("the text is no moment such as 2026-01-31T12:00:00Z") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def add_duration(text: str, duration: str, form: str | None) -> str:
    """`dateTimeAdd`: a duration such as P1D or -PT3H."""
    moment = read_moment(text)
    found = _DURATION.fullmatch(duration)
    if found is None or not re.search(r"\d", duration) or duration.endswith("T"):
        raise Fault(f"'{duration[:40]}' is no duration such as P1D or -PT3H")
    parts = {key: int(value or 0) for key, value in found.groupdict().items() if key != "sign"}
    sign = -1 if found["sign"] else 1
    try:
        moved = _add_months(moment, sign * (parts["years"] * 12 + parts["months"]))
        moved += sign * timedelta(
            weeks=parts["weeks"],
            days=parts["days"],
            hours=parts["hours"],
            minutes=parts["minutes"],
            seconds=parts["seconds"],
        )
        # Without a format the result looks as what it was added to.
        is_short = form is None and re.fullmatch(r"\d{8}T\d{6}Z", text) is not None
        default = "" if is_short else "yyyy-MM-ddTHH:mm:ssZ"
        return format_moment(moved, default if form is None else form)
    except (ValueError, OverflowError) as error:
        raise Fault("the moment is not between the years 1 and 9999") from error


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise Fault("the moment is not between the years 1 and 9999")
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)
