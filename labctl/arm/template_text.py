"""Functions of templates that make texts of texts."""

# ruff: noqa: ARG001 - every function is given the budget, and few ask for room in it
import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote, urljoin
from uuid import UUID, uuid5

from labctl.arm.template_fault import Budget, Fault, Json
from labctl.arm.template_values import (
    are_same,
    dump,
    take_int,
    take_list,
    take_text,
    take_texts,
)

_HOLE = re.compile(r"\{\{|\}\}|\{(\d{1,3})(?:,(-?\d{1,4}))?(?::([^{}]{0,20}))?\}|[{}]")
_GUIDS = UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def join_values(given: Sequence[Json], budget: Budget) -> Json:
    """`concat`: texts to a text, or arrays to an array."""
    if given and all(isinstance(each, list) for each in given):
        return [item for each in given for item in each]
    if any(isinstance(each, list | dict) for each in given):
        raise Fault("concat takes either texts and numbers or arrays, not both, and no objects")
    return "".join(to_text(each) for each in given)


def to_text(value: Json) -> str:
    """`string`. Of a boolean Azure makes True or False, though true or false in JSON."""
    if isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else dump(value)


def format_text(given: Sequence[Json], budget: Budget) -> Json:
    """`format`: {0} and {1:D3}."""
    template = take_text(given[0])
    parts: list[str] = []
    end = 0
    for hole in _HOLE.finditer(template):
        parts.append(template[end : hole.start()])
        end = hole.end()
        if hole[0] in {"{{", "}}"}:
            parts.append(hole[0][0])
        elif hole[1] is None:
            raise Fault("a brace in the format is neither doubled nor part of {number}")
        else:
            place = int(hole[1]) + 1
            if place >= len(given):
                raise Fault(f"the format asks for {hole[0]}, which is not given")
            text = _shape(given[place], hole[3] or "")
            width = int(hole[2] or 0)
            text = text.rjust(width) if width > 0 else text.ljust(-width)
            budget.spend(len(text))
            parts.append(text)
    parts.append(template[end:])
    return "".join(parts)


def _shape(value: Json, form: str) -> str:
    if not form:
        return to_text(value)
    kind, digits = form[0], form[1:]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or (digits and not digits.isdecimal()) or int(digits or 0) > 99:
        raise Fault("the lab's format() knows {n}, {n:D3}, {n:X4} and {n:N0}, for integers")
    value, width = take_int(value), int(digits or 0)
    if kind in "dD":
        return f"{'-' if value < 0 else ''}{abs(value):0{width}d}"
    if kind in "xX" and value >= 0:
        return f"{value:0{width}{kind}}"
    if kind in "nN":
        return f"{value:,.{width if digits else 2}f}"
    raise Fault("the lab's format() knows {n}, {n:D3}, {n:X4} and {n:N0}, for integers")


def replace_text(given: Sequence[Json], budget: Budget) -> Json:
    """`replace`."""
    text, old, new = take_texts(given)
    if not old:
        raise Fault("replace needs something to look for")
    budget.spend(text.count(old) * len(new))
    return text.replace(old, new)


def split_text(given: Sequence[Json], budget: Budget) -> Json:
    """`split` at one of several delimiters."""
    text = take_text(given[0])
    marks = [given[1]] if isinstance(given[1], str) else take_list(given[1])
    wanted = [take_text(mark) for mark in marks if mark != ""]
    if not wanted:
        return [text]
    budget.spend(len(text) * len(wanted))
    return re.split("|".join(re.escape(mark) for mark in wanted), text)


def join_texts(given: Sequence[Json], budget: Budget) -> Json:
    """`join`."""
    parts = [to_text(each) for each in take_list(given[0])]
    mark = take_text(given[1])
    budget.spend(len(mark) * len(parts))
    return mark.join(parts)


def cut_text(given: Sequence[Json], budget: Budget) -> Json:
    """`substring`."""
    text, begin = take_text(given[0]), take_int(given[1])
    length = take_int(given[2]) if len(given) > 2 else len(text) - begin
    if begin < 0 or length < 0 or begin + length > len(text):
        raise Fault(
            f"substring from {begin} for {length} is not within a text of {len(text)} characters"
        )
    return text[begin : begin + length]


def pad_left(given: Sequence[Json], budget: Budget) -> Json:
    """`padLeft`."""
    text, width = to_text(given[0]), take_int(given[1])
    fill = take_text(given[2]) if len(given) > 2 else " "
    if len(fill) != 1:
        raise Fault("padLeft fills with one character")
    budget.spend(max(width, 0))
    return text.rjust(width, fill)


def find_text(given: Sequence[Json], budget: Budget) -> Json:
    """`indexOf`, in any case; also for arrays."""
    if isinstance(given[0], list):
        return next((i for i, each in enumerate(given[0]) if are_same(each, given[1])), -1)
    text, part = take_texts(given)
    return text.lower().find(part.lower())


def find_last_text(given: Sequence[Json], budget: Budget) -> Json:
    """`lastIndexOf`, in any case; also for arrays."""
    if isinstance(given[0], list):
        found = [i for i, each in enumerate(given[0]) if are_same(each, given[1])]
        return found[-1] if found else -1
    text, part = take_texts(given)
    return text.lower().rfind(part.lower())


def starts_with(given: Sequence[Json], budget: Budget) -> Json:
    """`startsWith`, in any case."""
    text, part = take_texts(given)
    return text.lower().startswith(part.lower())


def ends_with(given: Sequence[Json], budget: Budget) -> Json:
    """`endsWith`, in any case."""
    text, part = take_texts(given)
    return text.lower().endswith(part.lower())


def make_unique_text(given: Sequence[Json], budget: Budget) -> Json:
    """`uniqueString`: 13 letters and digits, always the same for the same texts.

    Azure's own algorithm is not published; the lab's gives other characters.
    """
    digest = hashlib.sha256("\0".join(take_texts(given)).encode()).digest()
    number = int.from_bytes(digest[:9], "big")
    return "".join(_LETTERS[number >> (5 * place) & 31] for place in range(13))


def make_guid(given: Sequence[Json], budget: Budget) -> Json:
    """`guid`: always the same for the same texts."""
    return str(uuid5(_GUIDS, "-".join(take_texts(given))))


def encode_base64(given: Sequence[Json], budget: Budget) -> Json:
    """`base64`."""
    return base64.b64encode(take_text(given[0]).encode()).decode()


def decode_base64(given: Sequence[Json], budget: Budget) -> Json:
    """`base64ToString`."""
    try:
        return base64.b64decode(take_text(given[0]), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Fault("the text is not base64 of a text") from error


def parse_json(given: Sequence[Json], budget: Budget) -> Json:
    """`json`."""
    return read_json(take_text(given[0]))


def decode_json(given: Sequence[Json], budget: Budget) -> Json:
    """`base64ToJson`."""
    return read_json(decode_base64(given, budget))


def read_json(text: str) -> Json:
    """JSON in a text, with nothing in it that could not be sent again."""
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_read_float)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Fault("the text is not JSON") from error
    return found


def _read_float(text: str) -> float:
    found = float(text)
    if found in {float("inf"), float("-inf")}:
        raise ValueError(text[:40])
    return found


def _refuse(name: str) -> float:
    raise ValueError(name)


def join_uri(given: Sequence[Json], budget: Budget) -> Json:
    """`uri`."""
    base, rest = take_texts(given)
    try:
        return urljoin(base, rest)
    except ValueError as error:
        raise Fault("the texts make no URI") from error


def encode_uri(given: Sequence[Json], budget: Budget) -> Json:
    """`uriComponent`."""
    return quote(take_text(given[0]), safe="-_.!~*'()")


def decode_uri(given: Sequence[Json], budget: Budget) -> Json:
    """`uriComponentToString`."""
    try:
        return unquote(take_text(given[0]), errors="strict")
    except ValueError as error:
        raise Fault("the text is not an encoded text") from error


def make_data_uri(given: Sequence[Json], budget: Budget) -> Json:
    """`dataUri`."""
    return f"data:text/plain;charset=utf8;base64,{encode_base64([to_text(given[0])], budget)}"
