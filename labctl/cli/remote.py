"""`labctl --server URL`: the same commands, run on the host of a labctl serve."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labctl import __version__
from labctl.cli import context as run
from labctl.cli.output import Output
from labctl.cli.remote_connection import Remote, open_remote
from labctl.cli.remote_files import pack_recipe, read_spec_files
from labctl.cli.remote_words import Target
from labctl.cli.wishes import confirm
from labctl.errors import HostError, InvalidError, RefusedError

_HINT = "write the command first: labctl COMMAND ... --server URL"
# Options with a value, of commands that name files: what follows them is no file.
_VALUED = frozenset(
    {"-o", "--output", "--timeout", "--definition", "--version", "--format", "--os-type"}
    | {"--description", "--set", "--greeting", "--copy-to"}
)

Json = Any  # what json.loads gives


def run_remotely(
    target: Target, words: Sequence[str], *, known: Mapping[str, Sequence[str]]
) -> int | None:
    """Run a command line on the server; the value is its exit code. Raises LabError.

    None: the command needs no lab, and is to be run here.
    """
    path, rest = split_command(words, known)
    if path == ("import",):
        return None
    _take_output(rest)
    _refuse_local(path, rest, target)
    remote = open_remote(target)
    request: dict[str, Json] = {"argv": [*path, *rest], "version": __version__}
    if path == ("apply",):
        request["files"] = read_spec_files(_find_argument(rest, "SPEC.yaml"))
    elif path == ("image", "import"):
        name = _find_argument(rest, "FILE")
        request["uploads"] = {name: _upload(remote, Path(name))}
    elif path == ("image", "build"):
        name = _find_argument(rest, "RECIPE_DIR")
        request["files"], request["recipes"] = pack_recipe(name)
    elif path in {("delete",), ("disk", "delete")}:
        request["argv"] = [*path, *_confirm(path, rest)]
    content = json.dumps(request).encode()
    headers = {"Content-Type": "application/json"}
    with remote.ask("/labctl/v1/commands", content, headers) as answer:
        _compare_versions(answer.headers.get("x-labctl-version"), remote.url)
        for line in remote.read_lines(answer):
            if not line.endswith(b"\n"):
                break  # cut off in the middle
            if line.strip():
                code = _show(_parse(line, remote.url))
                if code is not None:
                    return code
    raise HostError(
        f"the connection with {remote.url} was lost before the command ended",
        hint="run the same command again to go on",
    )


def split_command(
    words: Sequence[str], known: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], list[str]]:
    """The words of the command, and all others. Raises InvalidError when it cannot be told."""
    path: list[str] = []
    early: list[str] = []  # options before the command
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word in {"-o", "--output", "--state-dir", "--uri"} and waiting:
            early += [word, waiting.pop(0)]
        elif re.fullmatch(r"-o.+|--(output|state-dir|uri)=.*|-v|--verbose", word):
            early.append(word)
        elif word.startswith("-"):
            raise InvalidError(f"{word!r} stands before the command", hint=_HINT)
        else:
            path.append(word)
            inner = known.get(path[0])
            if inner is None:
                raise InvalidError(f"there is no command {path[0]!r}", hint="run: labctl --help")
            if len(path) == 2 and word not in inner:
                raise InvalidError(
                    f"there is no command {' '.join(path)!r}", hint=f"run: labctl {path[0]} --help"
                )
            if not inner or len(path) == 2:
                return tuple(path), [*early, *waiting]
    raise InvalidError(
        f"labctl {' '.join(path)}".rstrip() + " needs a command",
        hint=f"run: {' '.join(['labctl', *path])} --help",
    )


def _take_output(rest: Sequence[str]) -> None:
    """How errors of our own are to be shown; whether it is a good value the server tells."""
    formats = {each.value for each in Output}
    for place, word in enumerate(rest):
        if word == "--":
            break
        if word in {"-o", "--output"}:
            value = rest[place + 1] if place + 1 < len(rest) else ""
        else:
            value = word.removeprefix("--output=") if word.startswith("--output=") else word[2:]
            if not word.startswith(("-o", "--output=")):
                continue
        if value in formats:
            run.set_output(Output(value))


def _refuse_local(path: tuple[str, ...], rest: Sequence[str], target: Target) -> None:
    before = rest[: rest.index("--")] if "--" in rest else rest
    for word in before:
        name = word.partition("=")[0]
        if name in {"--state-dir", "--uri"}:
            raise InvalidError(
                f"{name} and --server cannot both be given",
                detail=f"the server is {target.server}, which has a lab of its own",
                hint="leave one out; LABCTL_SERVER counts like --server",
            )
    if path == ("serve",):
        raise RefusedError(
            "labctl serve is started on its own host",
            hint="leave out --server, or unset LABCTL_SERVER",
        )
    if path == ("instance", "console"):
        raise RefusedError(
            "the console needs a terminal on the server's host",
            hint="to read what was written: labctl instance logs INSTANCE",
        )
    if path == ("instance", "ssh") and len(_list_arguments(rest)) < 2:
        raise RefusedError(
            "a login shell needs a terminal on the server's host",
            hint="to run a command in the guest: labctl instance ssh INSTANCE -- COMMAND",
        )


def _list_arguments(rest: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found = []
    waiting = iter(rest)
    for word in waiting:
        if word == "--":
            found += list(waiting)
        elif word in _VALUED:
            next(waiting, None)
        elif word == "-" or not word.startswith("-"):
            found.append(word)
    return found


def _find_argument(rest: Sequence[str], what: str) -> str:
    found = _list_arguments(rest)
    if not found:
        raise InvalidError(f"{what} is not named", hint="run the command with --help")
    return found[0]


def _upload(remote: Remote, path: Path) -> str:
    """Send a file; returns what the server calls it."""
    try:
        path = path.expanduser()
        file = path.open("rb")
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    with file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
        except OSError as error:
            raise _unreadable(path, error) from error
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        print(f"{path}: sending {size / 2**20:.1f} MiB", file=sys.stderr)
        with remote.ask(f"/labctl/v1/uploads?sha256={digest}", file, headers) as answer:
            return str(json.loads(b"".join(remote.read_lines(answer)))["id"])


def _unreadable(path: Path, error: OSError | RuntimeError) -> InvalidError:
    detail = error.strerror if isinstance(error, OSError) else str(error)
    return InvalidError(f"file {str(path)!r} cannot be read", detail=detail or "")


def _confirm(path: tuple[str, ...], rest: list[str]) -> list[str]:
    """Ask here, where somebody can answer."""
    if {"-y", "--yes"} & set(rest) or not sys.stdin.isatty():
        return rest
    what = "data disk" if path[0] == "disk" else "scale set"
    confirm(f"delete {what} {_find_argument(rest, what)} for ever?", yes=False)
    return ["--yes", *rest]


def _compare_versions(theirs: str | None, url: str) -> None:
    if theirs != __version__:
        has = f"labctl {theirs}" if theirs else "another version"
        print(f"labctl: {url} runs {has}, this is {__version__}; it counts there", file=sys.stderr)


def _parse(line: bytes, url: str) -> dict[str, Json]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or ("exit" in found and not isinstance(found["exit"], int)):
        raise HostError(
            f"what answers at {url} is not labctl serve",
            detail=f"it said: {line[:100].decode(errors='replace').strip()}",
            hint="is the address right, and is nothing between that answers in its place?",
        )
    return found


def _show(line: dict[str, Json]) -> int | None:
    """Write a piece of output as it came, or give back the exit code."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if name in line:
            stream.write(str(line[name]))
            stream.flush()
        elif f"{name}64" in line:
            stream.flush()
            stream.buffer.write(base64.b64decode(line[f"{name}64"]))
            stream.flush()
    return int(line["exit"]) if "exit" in line else None
