"""Reads the expressions of Azure's templates: `[concat(parameters('a'), '-b')]`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from labctl.arm.template_fault import Fault

MAX_LENGTH = 24_576  # characters of an expression; Azure's bound
MAX_NESTING = 60
INT_MIN, INT_MAX = -(2**63), 2**63 - 1

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')
    |(?P<number>-?\d{1,20}(?![\w.]))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>[()\[\],.]))""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A text or a number."""

    value: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A function and what it is given. Names count in any case."""

    name: str  # as written; `_` and `.` are not part of Azure's own names
    arguments: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`.name` of an object, or `[index]` of an object or array."""

    of: "Node"
    key: "Node"


Node = Literal | Invocation | Member


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    at: int  # without the bracket before it


def is_expression(text: str) -> bool:
    """Is this an expression, and not a text that happens to begin with a bracket?"""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def unescape(text: str) -> str:
    """A text that is no expression: `[[x]` means `[x]`, but `[[ -f x ]] && y` itself."""
    return text[1:] if text.startswith("[[") and text.endswith("]") else text


def escape(text: str) -> str:
    """The same for a template, in which it might be taken for an expression."""
    return f"[{text}" if text.startswith("[") and text.endswith("]") else text


@lru_cache(maxsize=2048)
def parse_expression(text: str) -> Node:
    """The parts of `[...]`. Raises Fault with the place of what cannot be read."""
    if len(text) > MAX_LENGTH:
        raise Fault(f"the expression has more than {MAX_LENGTH} characters")
    return _Parser(text[1:-1]).read_all()


def walk(node: Node) -> Iterator[Node]:
    """The node and everything in it."""
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        match found:
            case Invocation(arguments=arguments):
                stack.extend(arguments)
            case Member(of=of, key=key):
                stack.extend((of, key))
            case Literal():
                pass


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_read_tokens(text))
        self._next = 0
        self._depth = 0

    def read_all(self) -> Node:
        node = self._read_node()
        if self._peek().kind != "end":
            raise self._unexpected("the end")
        return node

    def _read_node(self) -> Node:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise Fault(f"the expression is nested more than {MAX_NESTING} levels deep")
        node = self._read_start()
        members = 0
        while self._peek().text in {".", "["} and self._peek().kind == "mark":
            members += 1
            if members > MAX_NESTING:
                raise Fault(f"more than {MAX_NESTING} properties follow each other")
            if self._take().text == ".":
                name = self._peek()
                if name.kind != "word":
                    raise self._unexpected("the name of a property")
                self._take()
                node = Member(of=node, key=Literal(value=name.text))
            else:
                node = Member(of=node, key=self._read_node())
                self._expect("]")
        self._depth -= 1
        return node

    def _read_start(self) -> Node:
        token = self._peek()
        if token.kind == "text":
            self._take()
            return Literal(value=token.text[1:-1].replace("''", "'"))
        if token.kind == "number":
            self._take()
            number = int(token.text)
            if not INT_MIN <= number <= INT_MAX:
                raise Fault(f"{token.text} does not fit into 64 bits")
            return Literal(value=number)
        if token.kind != "word":
            raise self._unexpected("a function, a text or a number")
        name = self._take().text
        while self._is_mark("."):  # the name of a function of the user's own: namespace.name
            self._take()
            if self._peek().kind != "word":
                raise self._unexpected("the name of a function")
            name = f"{name}.{self._take().text}"
        self._expect("(")
        return Invocation(name=name, arguments=tuple(self._read_arguments()))

    def _read_arguments(self) -> Iterator[Node]:
        if self._is_mark(")"):
            self._take()
            return
        while True:
            yield self._read_node()
            if self._is_mark(","):
                self._take()
                continue
            self._expect(")")
            return

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is_mark(self, mark: str) -> bool:
        return self._peek().kind == "mark" and self._peek().text == mark

    def _expect(self, mark: str) -> None:
        if not self._is_mark(mark):
            raise self._unexpected(f"'{mark}'")
        self._take()

    def _unexpected(self, wanted: str) -> Fault:
        token = self._peek()
        found = "the end" if token.kind == "end" else f"'{token.text[:40]}'"
        return Fault(f"at character {token.at + 2} there is {found} where {wanted} belongs")


def _read_tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at, end)
        if found is None or found.lastgroup is None:
            rest = text[at:end].lstrip()
            if rest.startswith("'"):
                raise Fault("a text has no closing quote; a quote in a text is written ''")
            raise Fault(f"the expression cannot be read from '{rest[:40]}' on")
        yield _Token(
            kind=found.lastgroup, text=found[found.lastgroup], at=found.start(found.lastgroup)
        )
        at = found.end()
    yield _Token(kind="end", text="", at=end)
