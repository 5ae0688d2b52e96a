"""Collects everything that is wrong with a document, each with its JSON path."""

import math
import re
from collections.abc import Mapping

from labctl.arm.errors import ArmError, ErrorDetail

INVALID = "InvalidParameter"
NOT_SUPPORTED = "NotSupportedInLab"
MOST_ENTRIES = 1000  # of one array or object; no scale set has more of anything
MOST_DEEP = 40
MOST_DETAILS = 50
_SURROGATE = re.compile("[\ud800-\udfff]")


class Faults:
    """What is wrong so far. Readers note a fault and go on with None."""

    def __init__(self) -> None:
        self.found: list[ErrorDetail] = []
        self.lookups: list[ArmError] = []  # what was named and is not there

    def note(self, target: str, message: str, *, code: str = INVALID) -> None:
        """Remember a fault; the same place is not complained of twice with the same words."""
        detail = ErrorDetail(code=code, message=f"'{target}' {message}", target=target)
        if detail not in self.found:
            self.found.append(detail)

    def note_as_azure(self, target: str, message: str, code: str) -> None:
        """Remember a fault in the words that clients of Azure know, which name no path."""
        self.found.append(ErrorDetail(code=code, message=message, target=target))

    def check(self) -> None:
        """Raise ArmError with everything that was noted."""
        if not self.found:
            return
        first = self.found[0]
        if len(self.found) == 1 and self.lookups:
            raise self.lookups[0]  # with its own status
        if len(self.found) == 1:
            raise ArmError(400, first.code, first.message, target=first.target)
        codes = {detail.code for detail in self.found}
        raise ArmError(
            400,
            first.code if len(codes) == 1 else INVALID,
            f"{len(self.found)} values cannot be taken; the first: {first.message}",
            target=first.target,
            details=tuple(self.found[:MOST_DETAILS]),
        )

    def mapping(
        self, value: object, target: str, *, is_secret: bool = False
    ) -> dict[str, object] | None:
        """An object, or None after noting that it is none; None stays None."""
        if value is None or isinstance(value, dict):
            return value
        self.note(target, f"must be an object{'' if is_secret else f', not {show(value)}'}.")
        return None

    def list(self, value: object, target: str) -> list[object] | None:
        """An array, likewise."""
        if value is None or isinstance(value, list):
            return value
        self.note(target, f"must be an array, not {show(value)}.")
        return None

    def text(self, value: object, target: str, *, is_secret: bool = False) -> str | None:
        """A string, likewise."""
        if value is None or isinstance(value, str):
            return value
        self.note(target, f"must be a string{'' if is_secret else f', not {show(value)}'}.")
        return None

    def flag(self, value: object, target: str) -> bool | None:
        """A boolean, likewise; generic updates of `az` send them as text."""
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        if value is None or isinstance(value, bool):
            return value
        self.note(target, f"must be true or false, not {show(value)}.")
        return None

    def number(self, value: object, target: str) -> int | None:
        """A whole number, likewise; `20.0` and `"20"` count, as clients send them."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        if isinstance(value, str) and len(value) < 12 and value.isascii() and value.isdigit():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return value
        if value is not None:
            self.note(target, f"must be a whole number, not {show(value)}.")
        return None


def show(value: object) -> str:
    """A value for a message: short, and nothing of what is inside of it."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_content(value: object) -> None:
    """Raise ArmError for what is nested too deep, or could not be written down again.

    Without recursion, since the input is the client's.
    """
    level = [value]
    for _ in range(MOST_DEEP):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict | list) and len(each) > MOST_ENTRIES:
                # Entries are compared with each other, while other writers wait.
                raise _unreadable(f"has an array or object with more than {MOST_ENTRIES} entries")
            if isinstance(each, dict):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str) and _SURROGATE.search(each):
                raise _unreadable("has half a character: a surrogate without its pair")
            elif isinstance(each, float) and not math.isfinite(each):
                raise _unreadable("has a number that JSON does not know, such as NaN")
        if not inner:
            return
        level = inner
    raise _unreadable(f"is nested more than {MOST_DEEP} deep")


def _unreadable(reason: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"The document {reason}.")
