"""What every resource that is tracked has: a location and tags."""

import re
from collections.abc import Mapping
from typing import Any

from labctl.arm.errors import ArmError, invalid
from labctl.model.machine import NAME_PATTERN

Json = Any  # what json.loads gives

_TAGS = 50  # Azure's bounds
_TAG_NAME = 512
_TAG_VALUE = 256
_FORBIDDEN_IN_TAGS = frozenset("<>%&\\?/")


def read_location(value: Json, *, target: str = "location") -> str:
    """A location as a region of labctl: "East US" is "eastus".

    Raises ArmError (LocationRequired, InvalidParameter).
    """
    if value is None:
        raise invalid(
            "The location property is required for this definition.",
            code="LocationRequired",
            target=target,
        )
    name = value.replace(" ", "").lower() if isinstance(value, str) else ""
    if not re.fullmatch(NAME_PATTERN, name):
        raise invalid(
            f"'{target}' must be the name of a region, of letters, digits and hyphens, such as "
            f'"eastus" or "local", not {_quote(value)}.',
            target=target,
        )
    return name


def read_tags(value: Json, *, target: str = "tags") -> dict[str, str]:
    """Tags within Azure's bounds. Raises ArmError (InvalidTags, ...)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refuse_tag(f"must be an object of names and texts, not {_quote(value)}", target)
    if len(value) > _TAGS:
        raise _refuse_tag(f"must be at most {_TAGS} tags, not {len(value)}", target)
    if len({name.lower() for name in value}) < len(value):
        raise _refuse_tag("has two names that differ only in case", target)
    found: dict[str, str] = {}
    for name, text in value.items():
        if not 1 <= len(name) <= _TAG_NAME or _FORBIDDEN_IN_TAGS & set(name):
            fault = f"must have names of 1 to {_TAG_NAME} characters without <>%&\\?/"
            raise _refuse_tag(f"{fault}, not {_quote(name)}", target)
        # Clients send numbers and truth values, too; null is no tag with an empty text.
        if isinstance(text, bool):
            text = "true" if text else "false"  # noqa: PLW2901 - one value in another spelling
        if isinstance(text, int | float):
            text = str(text)  # noqa: PLW2901 - the same
        if text is None:
            text = ""  # noqa: PLW2901 - the same
        if not isinstance(text, str) or len(text) > _TAG_VALUE:
            fault = f"must have texts of at most {_TAG_VALUE} characters"
            raise _refuse_tag(f"{fault}, not {_quote(text)} for '{name[:60]}'", target)
        found[name] = text
    return found


def merge_tags(document: Mapping[str, Json], value: Json) -> dict[str, Json]:
    """A document with other tags; without any, it has no `tags`."""
    tags = read_tags(value)
    rest = {key: each for key, each in document.items() if key != "tags"}
    return rest | ({"tags": tags} if tags else {})


def _refuse_tag(fault: str, target: str) -> ArmError:
    return invalid(f"'{target}' {fault}.", code="InvalidTags", target=target)


def _quote(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
