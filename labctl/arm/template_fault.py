"""What goes wrong in a template, and how much one may ask for."""

from typing import Any

from labctl.arm.errors import ArmError

Json = Any  # what json.loads gives

MAX_DEPTH = 100  # of JSON in JSON, and of expressions in variables in expressions
MAX_NODES = 100_000  # parts of expressions that are worked out for one deployment
MAX_SIZE = 16 * 2**20  # characters and values that expressions give, all together
_NODE_SIZE = 8  # a value in a list costs more than a character


class Fault(Exception):  # noqa: N818 - a fault of the template
    """Why an expression has no value. Never holds values: they may be secret."""


class Budget:
    """How much the expressions of one deployment may still ask for."""

    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._size = MAX_SIZE

    def spend_node(self) -> None:
        """One more part of an expression is worked out."""
        self._nodes -= 1
        if self._nodes < 0:
            raise Fault(f"the template asks for more than {MAX_NODES} evaluations")

    def spend(self, size: int) -> None:
        """Room for something of this size, asked for before it is made."""
        self._size -= size
        if self._size < 0:
            raise Fault(f"the template's expressions give more than {MAX_SIZE} characters")

    def spend_literal(self, value: Json) -> None:
        """Room for a value as it stands in the template, without what is in it."""
        self.spend(_NODE_SIZE + (len(value) if isinstance(value, str) else 0))

    def spend_value(self, value: Json) -> None:
        """Room for a value with everything in it, shared parts counted each time."""
        stack: list[tuple[Json, int]] = [(value, 0)]
        while stack:
            found, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise Fault(f"a value is nested more than {MAX_DEPTH} levels deep")
            self.spend(_NODE_SIZE + (len(found) if isinstance(found, str) else 0))
            if isinstance(found, dict):
                self.spend(sum(map(len, found)))
                stack.extend((each, depth + 1) for each in found.values())
            elif isinstance(found, list):
                stack.extend((each, depth + 1) for each in found)


def invalid_template(reason: str, *, path: str = "", expression: str = "") -> ArmError:
    """400 InvalidTemplate: the place in the template, the expression, and why."""
    where = f" at '{path}'" if path else ""
    what = f" in the expression '{_shorten(expression)}'" if expression else ""
    return ArmError(
        400,
        "InvalidTemplate",
        f"Deployment template validation failed{where}{what}: {reason}.",
        target=path,
    )


def _shorten(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
