"""Explains faults of a spec: the place, the value and the rule, in words of our own."""

import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from labctl.model.machine import DISK_NAME_PATTERN, MOUNT_PATTERN, NAME_PATTERN
from labctl.model.quantity import format_duration, format_size
from labctl.model.spec import ZONE_NAME_PATTERN, ScaleSetSpec
from labctl.model.spec_rules import RuleError
from labctl.model.window import START_PATTERN, ZONE_PATTERN
from labctl.model.yaml_text import Document, Position, Step, Value

Steps = tuple[Step, ...]
Fault = tuple[Position, str]

_PATTERNS = {
    NAME_PATTERN: "must begin with a lower-case letter, go on with lower-case letters, digits and "
    "'-', not end with '-', and have at most 40 characters",
    DISK_NAME_PATTERN: "must begin with a lower-case letter, go on with lower-case letters, digits "
    "and '-', not end with '-', and have at most 12 characters",
    ZONE_NAME_PATTERN: "must be lower-case letters, digits and '-', not begin or end with '-', and "
    "have at most 40 characters",
    r"^(latest|\d+\.\d+\.\d+)$": "must be 'latest' or Major.Minor.Patch, such as 1.4.0",
    MOUNT_PATTERN: "must be an absolute path of letters, digits and . _ - /, or for Windows a "
    "drive letter from E: to Z:",
    START_PATTERN: 'must be a time of the day, from "00:00" to "23:59"',
    ZONE_PATTERN: "must be a time zone of the IANA database, such as Europe/Berlin",
    r"^[ -~]+$": "must be printable ASCII text on one line",
    r"^[0-9a-f]{64}$": "must be a SHA-256 checksum: 64 digits 0-9 and a-f",
    r"^/[!-~]*$": "must begin with '/' and have no blanks",
}
_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be more than"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be less than"),
}
# A default that is not computed follows from another fault, which is told.
_CONSEQUENCES = {"default_factory_not_called"}


def explain(
    error: ValidationError, document: Document, moved: Mapping[Steps, Steps]
) -> list[Fault]:
    """List the faults with their positions in the text.

    `moved` maps places in what was validated to places in the text, where they differ.
    """
    faults: list[Fault] = []
    for item in error.errors(include_url=False):
        at: Steps = item["loc"]
        cause = item.get("ctx", {}).get("error")
        if item["type"] in _CONSEQUENCES:
            continue
        if isinstance(cause, RuleError):
            for below, message in cause.faults:
                place = _source_of((*at, *below), moved)
                faults.append((document.mark_of(place), f"{label_of(place)}: {message}"))
            continue
        place = _source_of(at, moved)
        if item["type"] == "extra_forbidden":
            message = f"{label_of(place)}: unknown key; {_suggest(place)}"
            faults.append((document.key_mark_of(place), message))
        else:
            message = _word(item["type"], item.get("ctx", {}), item["msg"], place, document)
            faults.append((document.mark_of(place), f"{label_of(place)}: {message}"))
    return faults


def _source_of(at: Steps, moved: Mapping[Steps, Steps]) -> Steps:
    for length in range(len(at), 0, -1):
        if at[:length] in moved:
            return (*moved[at[:length]], *at[length:])
    return at


def _word(
    kind: str, context: Mapping[str, Any], fallback: str, place: Steps, document: Document
) -> str:
    """Say the rule, and the value that breaks it."""
    if kind == "missing":
        return "is missing"
    value = _value_at(document.value, place)
    if value is None:
        return "is empty; give it a value or remove the key"
    if "protectedSettings" in place:
        return _rule(kind, context, fallback, value)  # the value is nobody's business
    if kind == "string_type" and not isinstance(value, dict | list):
        return f'must be text; write it in quotes: "{document.text_of(place) or value}"'
    rule = _rule(kind, context, fallback, value)
    if kind in {"too_short", "too_long"}:
        return rule
    return f"{rule}, not {_show(value, document.text_of(place))}"


def _rule(kind: str, context: Mapping[str, Any], fallback: str, value: Value) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {_quantity(context[key], value)}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind in {"too_short", "too_long"}:
        least = kind == "too_short"
        bound = context["min_length" if least else "max_length"]
        return (
            f"must have at {'least' if least else 'most'} {bound}, has {context['actual_length']}"
        )
    if kind in {"enum", "literal_error"}:
        return f"must be {context['expected']}"
    return fallback.removeprefix("Value error, ")


def _quantity(bound: object, value: Value) -> str:
    """Write a bound in the unit of the value: text in the spec stands for bytes or time."""
    if isinstance(bound, timedelta):
        return format_duration(bound)
    if isinstance(bound, int) and isinstance(value, str):
        return format_size(bound)
    return str(bound)


def _show(value: Value, text: str | None) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return text or str(value)
    return repr(value if len(value) <= 60 else f"{value[:57]}...")


def _value_at(value: Value, place: Steps) -> Value:
    for step in place:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def label_of(place: Steps) -> str:
    """Write a place as `dataDisks[0].name`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".") or "spec"


def _suggest(place: Steps) -> str:
    """Guess which key was meant: here by its likeness, elsewhere only when nearly the same."""
    parent = [step for step in place[:-1] if isinstance(step, str)]
    known = [keys for keys, _ in _known_keys(ScaleSetSpec)]
    here = {keys[-1] for keys in known if keys[:-1] == tuple(parent)}
    wanted = _fold(str(place[-1]))
    folded = {_fold(key): key for key in here}
    near = get_close_matches(wanted, folded, n=1, cutoff=0.7)
    if near:
        return f"did you mean {folded[near[0]]}?"
    elsewhere = {_fold(keys[-1]): keys for keys in known}
    near = get_close_matches(wanted, elsewhere, n=1, cutoff=0.75)
    if near:
        return f"did you mean {'.'.join(elsewhere[near[0]])}?"
    return f"known here: {', '.join(sorted(here))}"


def _fold(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _known_keys(
    model: type[BaseModel], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """List every key of the spec with the keys above it."""
    for name, field in model.model_fields.items():
        keys = (*above, field.alias or name)
        yield keys, field.annotation
        for inner in _models_in(field.annotation):
            yield from _known_keys(inner, keys)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
