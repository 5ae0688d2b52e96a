"""One call of the API and its answer."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labctl.arm.errors import ArmError
from labctl.model.access import Principal

Json = Any  # what json.loads gives

_DEPTH = 100  # levels of a body; templates of clients have about 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was let in."""

    method: str
    path: str  # as the client wrote it, decoded
    parameters: Mapping[str, str]  # of the route, in the client's case
    query: Mapping[str, str]  # by key in lower case; "$top" keeps its $
    headers: Mapping[str, str]  # by name in lower case
    content: bytes
    base_url: str  # "https://HOST:PORT" as the client used it; links begin with it
    principal: Principal
    now: datetime
    request_id: str

    @property
    def api_version(self) -> str:
        """As the client gave it; links repeat it."""
        return self.query.get("api-version", "")

    def read_document(self) -> dict[str, Json]:
        """The body, which must be a JSON object. Raises ArmError (InvalidRequestContent)."""
        found = self.find_document()
        if found is None:
            raise ArmError(400, "InvalidRequestContent", "The request has no body.")
        return found

    def find_document(self) -> dict[str, Json] | None:
        """The same for calls that need no body; None: there is none."""
        if not self.content.strip():
            return None
        try:
            found = json.loads(
                self.content, parse_constant=_refuse_constant, parse_float=_read_float
            )
        except (ValueError, RecursionError) as error:
            raise ArmError(
                400, "InvalidRequestContent", f"The request's body is not JSON: {error}"
            ) from error
        if found is None:
            return None
        if not isinstance(found, dict):
            raise ArmError(
                400,
                "InvalidRequestContent",
                f"The request's body must be a JSON object, not {type(found).__name__}.",
            )
        _refuse_depth(found)
        _refuse_half_characters(found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back. `body` is JSON, or bytes with their own content type, or nothing."""

    status: int = 200
    body: Json | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str = ""  # for the audit log: why it was refused, where no ArmError was raised
    who: str = ""  # the same: whom a login let in


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _read_float(text: str) -> float:
    """1e999 is JSON, but what it becomes is none."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text[:40]} is too large")
    return found


def _refuse_depth(document: Json) -> None:
    """What is nested deeper than any resource could not be walked through, or written again."""
    level = [document]
    for _ in range(_DEPTH):
        level = [
            part
            for each in level
            for part in (each.values() if isinstance(each, dict) else each)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise ArmError(
        400,
        "InvalidRequestContent",
        f"The request's body is nested deeper than {_DEPTH} levels.",
    )


def _refuse_half_characters(value: Json) -> None:
    """A lone surrogate cannot be stored or sent; JSON may spell one."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise ArmError(
            400, "InvalidRequestContent", "The request's body has half a character in a string."
        ) from error
