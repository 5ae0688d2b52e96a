"""Strict YAML with positions: what people write in specs, without YAML's surprises.

Only `true` and `false` are booleans, numbers are decimal, `22:00`, `no` and `0644` are text.
Duplicate keys, tags, several documents and endless aliases are errors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from labctl.errors import InvalidError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Step = str | int
Path = tuple[Step, ...]
Position = tuple[int, int]  # line and column, counted from 1

MAX_DEPTH = 32
MAX_NODES = 20_000  # values after aliases are written out

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")  # longer ones stay text and fail by type
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # an escape in quotes can make them
_NULLS = {"", "~", "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed text, and where each part of it stands."""

    source: str
    value: Value
    _values: Mapping[Path, Position]
    _keys: Mapping[Path, Position]
    _texts: Mapping[Path, str]

    def mark_of(self, path: Sequence[Step]) -> Position:
        """Line and column of the value at `path`, or of the nearest part above it."""
        return _nearest(tuple(path), self._values)

    def key_mark_of(self, path: Sequence[Step]) -> Position:
        """Line and column of the key at `path`; where there is no such key: of the value."""
        return self._keys.get(tuple(path)) or self.mark_of(path)

    def text_of(self, path: Sequence[Step]) -> str | None:
        """The characters of a scalar that is not in quotes: `1.10` where the value is 1.1."""
        return self._texts.get(tuple(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parse one document. `source` names the text in errors, for example the file's name.

    Raises InvalidError with a line `source:line:column: fault` for each fault.
    """
    builder = _Builder()
    try:
        value = builder.build(_events(text))
    except _FaultError as fault:
        builder.faults.append((fault.position, fault.message))
        value = None
    if builder.faults:
        raise invalid(source, builder.faults)
    return Document(
        source=source,
        value=value,
        _values=builder.values,
        _keys=builder.keys,
        _texts=builder.texts,
    )


def invalid(source: str, faults: Sequence[tuple[Position, str]], *, hint: str = "") -> InvalidError:
    """Make one error of all `faults` of a text, in the order of the text."""
    lines = [f"{source}:{line}:{column}: {message}" for (line, column), message in sorted(faults)]
    count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
    return InvalidError(
        f"{count} in {source}; nothing was changed", detail="\n".join(lines), hint=hint
    )


class _FaultError(Exception):
    """The text cannot be read beyond this place."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


@dataclass(slots=True, kw_only=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    container: list[Value] | dict[str, Value]
    path: Path
    anchor: str | None
    nodes: int = 1
    key: str | None = None  # of a mapping: read, and its value comes next


@dataclass(slots=True)
class _Builder:
    """Builds values from events with a stack of its own, so that depth is bounded."""

    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    faults: list[tuple[Position, str]] = field(default_factory=list)
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Value, int]] = field(default_factory=dict)
    _nodes: int = 0
    _root: Value = None
    _documents: int = 0

    def build(self, events: Iterator[yaml.Event]) -> Value:
        for event in events:
            position = _position(event.start_mark)
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise _FaultError(position, "a second document begins; one is expected")
                case yaml.ScalarEvent():
                    self._add_scalar(event, position)
                case yaml.AliasEvent():
                    self._add_alias(str(event.anchor), position)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._open(event, position)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    done = self._stack.pop()
                    if done.anchor is not None:
                        self._anchors[done.anchor] = (done.container, done.nodes)
                case _:
                    pass  # begin and end of the stream and of the document
        return self._root

    def _add_scalar(self, event: yaml.ScalarEvent, position: Position) -> None:
        plain = event.implicit[0]
        if event.tag is not None and event.tag != "!":
            self.faults.append((position, f"tag {event.tag!r} is not supported"))
        strange = _UNUSABLE.search(event.value)
        if strange:
            message = f"character U+{ord(strange.group()):04X} cannot be used"
            raise _FaultError(position, message)
        if self._takes_key():
            self._set_key(event.value, position)
            return
        value = _resolve(event.value) if plain else event.value
        path = self._add(value, 1, position)
        if plain:
            self.texts[path] = event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)

    def _add_alias(self, anchor: str, position: Position) -> None:
        if self._takes_key():
            raise _FaultError(position, f"alias '*{anchor}' cannot be a key")
        if anchor not in self._anchors:
            inside = any(part.anchor == anchor for part in self._stack)
            reason = "refers to a value that contains it" if inside else "is not defined above"
            raise _FaultError(position, f"alias '*{anchor}' {reason}")
        value, nodes = self._anchors[anchor]
        self._add(value, nodes, position)

    def _open(
        self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, position: Position
    ) -> None:
        if event.tag is not None:
            self.faults.append((position, f"tag {event.tag!r} is not supported"))
        if self._takes_key():
            raise _FaultError(position, "a list or mapping cannot be a key")
        if len(self._stack) >= MAX_DEPTH:
            raise _FaultError(position, f"nested more than {MAX_DEPTH} deep")
        container: list[Value] | dict[str, Value]
        container = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        path = self._add(container, 1, position)
        self._stack.append(_Open(container=container, path=path, anchor=event.anchor))

    def _takes_key(self) -> bool:
        """Is the next value the key of a mapping?"""
        return (
            bool(self._stack)
            and isinstance(self._stack[-1].container, dict)
            and self._stack[-1].key is None
        )

    def _set_key(self, key: str, position: Position) -> None:
        parent = self._stack[-1]
        path = (*parent.path, key)
        if path in self.keys:
            line = self.keys[path][0]
            self.faults.append((position, f"duplicate key {key!r}, first in line {line}"))
        else:
            self.keys[path] = position
        parent.key = key

    def _add(self, value: Value, nodes: int, position: Position) -> Path:
        """Put a finished or just opened value into its place; give back where that is."""
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _FaultError(position, f"more than {MAX_NODES} values, aliases written out")
        for part in self._stack:
            part.nodes += nodes
        if not self._stack:
            self._root = value
            path: Path = ()
        else:
            parent = self._stack[-1]
            if isinstance(parent.container, list):
                path = (*parent.path, len(parent.container))
                parent.container.append(value)
            else:
                key = parent.key or ""
                path = (*parent.path, key)
                parent.container[key] = value
                parent.key = None
        self.values[path] = position
        return path


def _events(text: str) -> Iterator[yaml.Event]:
    """Read events; tell faults of the text in our words, with their position."""
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = _explain(error.problem or error.context or "cannot be read")
        raise _FaultError(_position(mark), message) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        message = f"character U+{ord(text[error.position]):04X} is not allowed"
        raise _FaultError((len(before), len(before[-1]) + 1), message) from error


def _explain(problem: str) -> str:
    """Put the parser's commonest complaints in words that tell what to mend."""
    if "'\\t'" in problem:
        return "a tab stands here; indent with spaces"
    if "mapping values are not allowed" in problem:
        return "':' is not expected here; check the indentation, or put the text in quotes"
    if "could not find expected ':'" in problem:
        return "':' is missing after the key"
    if "cannot start any token" in problem:
        character = problem.split("'")[1]
        return f"text that begins with {character!r} must be in quotes"
    if "expected <block end>" in problem:
        return "the indentation does not fit the lines above"
    if "end of stream" in problem or "<stream end>" in problem:
        return "the text ends inside quotes or brackets"
    return f"not valid YAML: {problem}"


def _resolve(text: str) -> Value:
    """Give a scalar without quotes its type, by the core rules of YAML 1.2 made stricter."""
    if text in _NULLS:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) < 40 and _FLOAT.fullmatch(text) and not text.lstrip("+-").isdecimal():
        return float(text)
    return text


class _Mark(Protocol):
    """A place in a text, counted from 0."""

    line: int
    column: int


def _position(mark: _Mark | None) -> Position:
    if mark is None:
        return 1, 1
    return mark.line + 1, mark.column + 1


def _nearest(path: Path, marks: Mapping[Path, Position]) -> Position:
    """Find the mark of `path`, else of the closest part above it, else the begin of the text."""
    for length in range(len(path), -1, -1):
        mark = marks.get(path[:length])
        if mark is not None:
            return mark
    return 1, 1
