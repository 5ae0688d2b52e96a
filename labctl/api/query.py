"""What lists are asked for: how many, and which."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from labctl.api.call import Call
from labctl.arm.errors import ArmError, invalid

Item = TypeVar("Item")

_TERM = re.compile(r"\s*(?P<field>[A-Za-z]{1,30})\s+eq\s+'(?P<value>(?:[^']|'')*)'\s*")
_AND = re.compile(r"and\s", re.IGNORECASE)


def cut(call: Call, items: Sequence[Item]) -> Sequence[Item]:
    """The first `$top` of a list, or all. Raises ArmError for what is no number from 1 on."""
    top = call.query.get("$top")
    if top is None:
        return items
    if not top.isascii() or not top.isdigit() or len(top) > 9 or int(top) < 1:
        raise invalid(f"$top '{top[:60]}' is not a number from 1 on.", target="$top")
    return items[: int(top)]


def read_filter(call: Call, *fields: str) -> dict[str, str]:
    """`$filter` as values by field in lower case: `FIELD eq 'VALUE'`, several joined by `and`.

    Raises ArmError (InvalidFilterInQueryString) for anything else.
    """
    text = call.query.get("$filter", "")
    found: dict[str, str] = {}
    place = 0
    known = {field.lower() for field in fields}
    while text[place:].strip():
        match = _TERM.match(text, place)
        if match is None or match["field"].lower() not in known:
            raise _refuse(text, fields)
        found[match["field"].lower()] = match["value"].replace("''", "'")
        place = match.end()
        joint = _AND.match(text, place)
        if joint is not None:
            place = joint.end()
            if not text[place:].strip():
                raise _refuse(text, fields)
        elif text[place:].strip():
            raise _refuse(text, fields)
    return found


def has_tag(document: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Does it have the tag that a filter asks for by `tagname` and `tagvalue`?"""
    tags = {key.lower(): text for key, text in document.get("tags", {}).items()}
    name, value = wanted.get("tagname"), wanted.get("tagvalue")
    if name is None:
        return value is None or value in tags.values()
    return name.lower() in tags and (value is None or tags[name.lower()] == value)


def _refuse(text: str, fields: tuple[str, ...]) -> ArmError:
    return ArmError(
        400,
        "InvalidFilterInQueryString",
        f"Invalid $filter '{text[:100]}' specified in the query string: this lab knows "
        f"FIELD eq 'VALUE', joined by and, for {', '.join(fields)}.",
        target="$filter",
    )
