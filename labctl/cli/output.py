"""Prints results to stdout: as an aligned table, as JSON or as YAML."""

import dataclasses
import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum, StrEnum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from typing_extensions import override

_OTHER_BREAKS = {"\x85", "\u2028", "\u2029"}  # line breaks to YAML 1.1, plain characters to others


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table: the key of the row, and how it looks."""

    key: str
    heading: str = ""  # default: the key, `imageVersion` as `IMAGE VERSION`
    right: bool = False  # numbers read best aligned at the right

    @property
    def title(self) -> str:
        """What stands above the column."""
        return self.heading or _spell_out(self.key)


def print_rows(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[Column | str],
    output: Output,
    *,
    empty: str = "nothing to show",
) -> None:
    """Print a list; as a table only `columns`, as JSON or YAML every key of every row.

    Keys are camelCase, as they shall appear in JSON. `empty` stands for a table without rows.
    """
    if output is not Output.TABLE:
        print_document(rows, output)
    elif rows:
        print(format_table(rows, columns))
    else:
        print(empty)


def print_document(document: object, output: Output) -> None:
    """Print one thing with everything in it; as a table: one line for each value."""
    plain = to_plain(document)
    if output is Output.JSON:
        print(json.dumps(plain, indent=2, ensure_ascii=False))
    elif output is Output.YAML:
        print(format_yaml(plain), end="")
    else:
        lines = _flatten(plain)
        width = max((_width(key) for key, _ in lines), default=0)
        for key, value in lines:
            print(f"{_pad(key, width)}  {value}".rstrip())


def format_table(rows: Sequence[Mapping[str, object]], columns: Sequence[Column | str]) -> str:
    """Align `columns` of `rows` under headings, two spaces apart; nothing is cut or wrapped."""
    chosen = [Column(key=column) if isinstance(column, str) else column for column in columns]
    lines = [[column.title for column in chosen]]
    lines += [[format_cell(row.get(column.key)) for column in chosen] for row in rows]
    widths = [max(_width(line[place]) for line in lines) for place in range(len(chosen))]
    return "\n".join(
        "  ".join(
            _pad(cell, width, right=column.right)
            for cell, width, column in zip(line, widths, chosen, strict=True)
        ).rstrip()
        for line in lines
    )


def format_cell(value: object) -> str:
    """Write one value for people, on one line; `-` stands for nothing."""
    if value is None or value in ("", (), []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return format_moment(value)
    if isinstance(value, timedelta):
        return format_span(value)
    if isinstance(value, list | tuple):
        return ", ".join(format_cell(item) for item in value)
    return format_line((str(value.value) if isinstance(value, Enum) else str(value)).strip())


def format_line(text: str) -> str:
    """Write text of guests and files, without line breaks and escape sequences, as it stands."""
    return "".join(
        " " if unicodedata.category(character) == "Cc" else character for character in text
    )


def format_moment(value: datetime) -> str:
    """Write ISO 8601 in UTC, to the second: `2026-11-23T01:02:03Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_span(value: timedelta) -> str:
    """Write a length of time for people: `0.4s`, `41s`, `3m20s`, `2h05m`, `3d4h`."""
    seconds = value.total_seconds()
    if seconds < 0:
        return f"-{format_span(-value)}"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def to_plain(value: object) -> Any:  # noqa: ANN401  any JSON value
    """Turn values of the model into what JSON knows.

    Fields of dataclasses get camelCase keys, keys of mappings stay; moments are ISO 8601 in UTC,
    lengths of time are seconds.
    """
    match value:
        case None | bool() | int() | float() if not isinstance(value, Enum):
            return value
        case Enum():
            return value.value
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case timedelta():
            seconds = value.total_seconds()
            return int(seconds) if seconds == int(seconds) else seconds
        case PurePath() | UUID():
            return str(value)
        case Mapping():
            return {str(to_plain(key)): to_plain(item) for key, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case set() | frozenset():
            return sorted((to_plain(item) for item in value), key=str)
        case _:
            return _object_to_plain(value)


def _object_to_plain(value: object) -> Any:  # noqa: ANN401  any JSON value
    has_own_text = type(value).__str__ is not object.__str__  # VersionNumber is "1.4.0"
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not has_own_text:
        return {
            to_camel(field.name): to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", by_alias=True)  # a pydantic model, without importing pydantic
    return str(value)


def to_camel(name: str) -> str:
    """Write `image_version` as `imageVersion`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def format_yaml(plain: object) -> str:
    """Write YAML in the order given; text of several lines as a block."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Does not change the dumper that others use."""

        @override
        def ignore_aliases(self, data: object) -> bool:
            """Write a value out each time it occurs."""
            del data
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        style = "|" if "\n" in text else None
        if _OTHER_BREAKS & set(text):
            style = '"'  # the emitter folds these in any other style
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2**20)


def _flatten(plain: object, prefix: str = "") -> list[tuple[str, str]]:
    """List `key: value` lines: `size.vcpus`, `dataDisks[0].name`."""
    if isinstance(plain, dict) and plain:
        lines = []
        for key, value in plain.items():
            lines += _flatten(value, f"{prefix}.{key}" if prefix else key)
        return lines
    if isinstance(plain, list) and any(isinstance(item, dict | list) for item in plain):
        lines = []
        for place, item in enumerate(plain):
            lines += _flatten(item, f"{prefix}[{place}]")
        return lines
    return [(prefix, "-" if plain == {} else format_cell(plain))]


def _spell_out(key: str) -> str:
    return "".join(f" {letter}" if letter.isupper() else letter for letter in key).strip().upper()


def _width(text: str) -> int:
    """Count the columns of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _pad(text: str, width: int, *, right: bool = False) -> str:
    room = " " * (width - _width(text))
    return room + text if right else text + room
