"""The small files that a client sends with a command: specs, and what these name."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Self

from labctl.errors import InvalidError
from labctl.settings import SENT_FILES

_INDEX = "index.json"


class Use(StrEnum):
    """What a file is that a client has sent."""

    SPEC = "spec"  # an argument of the command
    TEXT = "text"  # named in a spec
    PROTECTED = "protected"  # the same, with protected settings
    RECIPE = "recipe"  # part of an image recipe; its name is a relative path


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile:
    """A file of the client's, under the name that its user wrote."""

    use: Use
    name: str
    content: bytes = b""
    fault: str = ""  # why the client could not read it
    is_program: bool = False


def check_recipe_path(name: str) -> PurePosixPath:
    """The path of a part of a recipe. Raises InvalidError for one that leads out of it."""
    path = PurePosixPath(name)
    is_inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    if not is_inside or "\0" in name or len(name.encode()) > 1000:
        raise InvalidError(f"{name[:200]!r} is no path inside of a recipe")
    return path


def write_recipe(folder: Path, files: Sequence[SentFile]) -> None:
    """Write the parts of a recipe where they belong. Raises OSError, InvalidError."""
    for sent in files:
        if sent.use is Use.RECIPE:
            path = folder / check_recipe_path(sent.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(sent.content)
            path.chmod(0o755 if sent.is_program else 0o644)


def write_sent_files(folder: Path, files: Sequence[SentFile]) -> None:
    """Make `folder` with the files in it, each 0600. Raises OSError."""
    folder.mkdir(mode=0o700)
    index: dict[str, dict[str, dict[str, str]]] = {}
    for number, sent in enumerate(files):
        if sent.use is Use.RECIPE:
            continue
        # Numbers, not names: a name may lead anywhere.
        if not sent.fault:
            descriptor = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(sent.content)
        entry = {"file": str(number), "fault": sent.fault}
        index.setdefault(sent.use.value, {})[sent.name] = entry
    (folder / _INDEX).write_text(json.dumps(index), "utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFiles:
    """The files that came with a command; for the command itself."""

    folder: Path
    index: Mapping[str, Mapping[str, Mapping[str, str]]]

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> Self | None:
        """None: this command was not sent by a client."""
        name = environment.get(SENT_FILES)
        if not name:
            return None
        folder = Path(name)
        return cls(folder=folder, index=json.loads((folder / _INDEX).read_text("utf-8")))

    def locate(self, use: Use, name: str) -> Path:
        """Where a file is now. Raises InvalidError whose brief tells what the client had found."""
        entry = self.index.get(use.value, {}).get(name)
        if entry is None:
            raise InvalidError(f"file {name!r} was not sent by the client")
        if entry.get("fault"):
            raise InvalidError(entry["fault"])
        return self.folder / entry["file"]
