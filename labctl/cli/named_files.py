"""The files that a spec names: on this host, or sent by a client together with the spec."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labctl.cli.caller import is_for_client
from labctl.cli.spec_faults import label_of
from labctl.controller.sent_files import SentFiles, Use
from labctl.errors import InvalidError, RefusedError
from labctl.model.spec_rules import CUSTOM_DATA_LIMIT, SCRIPT_LIMIT
from labctl.model.yaml_text import Document, Step, Value

SPEC_LIMIT = 2 * 2**20  # bytes
_KEY_LIMIT = 16 * 1024  # bytes
_KEY_PATH_BEGINS = ("file:", "~", "/", "./", "../")
_STDIN = "<stdin>"
# Keys of a spec by which labctl runs programs of its host, or reads files there later on.
_HOST_KEYS = frozenset({"command", "playbook", "secretFile"})
_FREE_KEYS = frozenset({"settings", "protectedSettings"})  # hold whatever their user wants


class NamedFiles(Protocol):
    """Where the files are. Each call raises InvalidError, whose brief is the fault."""

    def read(self, name: str, limit: int) -> bytes:
        """The content; more than `limit` bytes, where it is longer."""

    def read_protected(self, name: str) -> dict[str, Value]:
        """The mapping in a file that nobody else may read."""

    def find(self, name: str) -> Path:
        """The whole path of a file that stays where it is, on the host of the daemon."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files of this host, below the folder of the spec unless they have a whole path."""

    base: Path

    def read(self, name: str, limit: int) -> bytes:
        """The content, from the disk."""
        try:
            with (self.base / Path(name).expanduser()).open("rb") as file:
                return file.read(limit + 1)
        except FileNotFoundError as error:
            where = f"looked in {str(self.base.absolute())!r}"
            raise InvalidError(f"file {name!r} does not exist; {where}") from error
        except OSError as error:
            raise InvalidError(f"file {name!r} cannot be read: {error.strerror}") from error
        except (ValueError, RuntimeError) as error:
            raise InvalidError(f"file {name!r} cannot be read: {error}") from error

    def read_protected(self, name: str) -> dict[str, Value]:
        """The mapping, from a file with mode 0600."""
        from labctl.cli.protected_file import parse_protected

        content = self.load_protected(name)
        try:
            return parse_protected(content)
        except InvalidError as error:
            raise InvalidError(f"file {name!r} {error.brief}") from error

    def load_protected(self, name: str) -> bytes:
        """The content of such a file."""
        from labctl.cli.protected_file import load_protected

        path = self.find(name)
        try:
            return load_protected(path)
        except InvalidError as error:
            raise InvalidError(f"file {name!r} {error.brief}") from error

    def find(self, name: str) -> Path:
        """The whole path."""
        if "\0" in name:
            raise InvalidError(f"{name!r} is no name of a file")
        try:
            return (self.base / Path(name).expanduser()).absolute()
        except RuntimeError as error:  # the home directory of nobody
            raise InvalidError(f"file {name!r} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class _FilesOfClient:
    """Files that a client has sent; no others can be named, but those that stay on this host."""

    sent: SentFiles

    def read(self, name: str, limit: int) -> bytes:
        """The content as it was sent."""
        with self.sent.locate(Use.TEXT, name).open("rb") as file:
            return file.read(limit + 1)

    def read_protected(self, name: str) -> dict[str, Value]:
        """The same; the client has looked at its mode."""
        from labctl.cli.protected_file import parse_protected

        content = self.sent.locate(Use.PROTECTED, name).read_bytes()
        try:
            return parse_protected(content)
        except InvalidError as error:
            raise InvalidError(f"file {name!r} {error.brief}") from error

    def find(self, name: str) -> Path:
        """A path of this host, which is not the client's."""
        if "\0" in name or not name.startswith("/"):
            raise InvalidError(f"{name!r} must be the whole path of a file on the server's host")
        return Path(name)


def open_spec(path: Path) -> tuple[bytes, str, NamedFiles]:
    """The content of a spec, what messages call it, and the files that it may name.

    Raises InvalidError.
    """
    sent = SentFiles.find(os.environ) if is_for_client() else None
    if sent is not None:
        content = sent.locate(Use.SPEC, str(path)).read_bytes()
        return content, _STDIN if str(path) == "-" else str(path), _FilesOfClient(sent)
    return open_local_spec(path)


def open_local_spec(path: Path) -> tuple[bytes, str, LocalFiles]:
    """The same for a person at this host."""
    if str(path) == "-":
        return sys.stdin.buffer.read(SPEC_LIMIT + 1), _STDIN, LocalFiles(Path())
    try:
        path = path.expanduser()
        with path.open("rb") as file:
            content = file.read(SPEC_LIMIT + 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    return content, str(path), LocalFiles(path.parent)


def find_key_file(key: str) -> str | None:
    """The file that an entry of sshKeys names; None: it is a key itself."""
    is_name = key.endswith(".pub") and len(key.split()) == 1
    if not (is_name or key.startswith(_KEY_PATH_BEGINS)):
        return None
    return key.removeprefix("file:").strip()


def list_named_files(spec: Value) -> Iterator[tuple[Use, str, int]]:
    """The files whose content a spec needs, with how many bytes of each; see `_Resolver`."""
    if not isinstance(spec, dict):
        return
    custom_data = spec.get("customData")
    if isinstance(custom_data, dict) and isinstance(custom_data.get("file"), str):
        yield Use.TEXT, str(custom_data["file"]), CUSTOM_DATA_LIMIT
    extensions = spec.get("extensions")
    for extension in extensions if isinstance(extensions, list) else ():
        if not isinstance(extension, dict):
            continue
        if isinstance(extension.get("file"), str):
            yield Use.TEXT, str(extension["file"]), SCRIPT_LIMIT
        if isinstance(extension.get("protectedSettingsFile"), str):
            yield Use.PROTECTED, str(extension["protectedSettingsFile"]), 0
    keys = spec.get("sshKeys")
    for key in keys if isinstance(keys, list) else ():
        name = find_key_file(key) if isinstance(key, str) else None
        if name is not None:
            yield Use.TEXT, name, _KEY_LIMIT


def refuse_host_access(document: Document) -> None:
    """Refuse what reaches into the host, before anything of it is looked at.

    Raises RefusedError.
    """
    refuse_places(
        document,
        list(_find_host_keys(document.value, ())),
        "the spec runs programs of the server's host or names files there",
    )


def refuse_places(document: Document, places: Sequence[tuple[Step, ...]], what: str) -> None:
    """Raises RefusedError that names these places of a spec, if there are any."""
    if not places:
        return
    lines = []
    for steps in sorted(places, key=document.key_mark_of):
        line, column = document.key_mark_of(steps)
        lines.append(f"{document.source}:{line}:{column}: {label_of(steps)}")
    raise RefusedError(
        f"{what}, which needs the scope 'admin'",
        detail="\n".join(lines),
        hint="use a token with the scope admin, or apply it on the host",
    )


def _find_host_keys(value: Value, at: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key in _HOST_KEYS and each is not None:
                yield (*at, key)
            elif key not in _FREE_KEYS:
                yield from _find_host_keys(each, (*at, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _find_host_keys(each, (*at, place))


def _unreadable(path: Path, error: Exception) -> InvalidError:
    """Say why a spec file cannot be read, and which one may have been meant."""
    if isinstance(error, FileNotFoundError):
        beside = sorted(
            other.name
            for pattern in ("*.yaml", "*.yml")
            for other in (path.parent.glob(pattern) if path.parent.is_dir() else ())
        )
        return InvalidError(
            f"spec file {str(path)!r} does not exist",
            detail=f"in {str(path.parent.absolute())!r} are: {', '.join(beside)}" if beside else "",
            hint="name a spec file, or start one: labctl example > web.yaml",
        )
    if isinstance(error, IsADirectoryError):
        return InvalidError(
            f"{str(path)!r} is a directory, not a spec file", hint="name the YAML file in it"
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InvalidError(f"spec file {str(path)!r} cannot be read", detail=str(reason))
