"""Programs that a spec names: run on the controller's host, without a shell."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from labctl.model.spec_rules import Faults

MOST_ARGUMENTS = 256

Argument = Annotated[str, Field(max_length=4096)]


def find_program_faults(command: Sequence[str] | None, key: str = "command") -> Faults:
    """Find what keeps a list of words from being a program with its arguments."""
    if command is None:
        return []
    if not command:
        return [((key,), "must name a program, and then its arguments")]
    faults: Faults = []
    program = command[0]
    if not program or ("/" in program and not program.startswith("/")):
        faults.append(
            ((key, 0), "must be the absolute path of a program, or a name that is found in PATH")
        )
    if len(command) > MOST_ARGUMENTS:
        faults.append(((key,), f"has {len(command)} words; at most {MOST_ARGUMENTS} are allowed"))
    faults += [
        ((key, place), "must not hold a NUL character")
        for place, word in enumerate(command)
        if "\0" in word
    ]
    return faults
