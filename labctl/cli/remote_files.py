"""What a command of `labctl --server` needs of this host: specs with their files, recipes."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labctl.errors import InvalidError

_LIMIT = 16 * 2**20  # bytes; the server takes no more
_MOST_FILES = 200  # likewise

Json = Any  # what json.loads gives


def read_spec_files(name: str) -> list[dict[str, Json]]:
    """The spec and the files that it names, for a server that has none of them."""
    from labctl.cli.named_files import list_named_files, open_local_spec
    from labctl.controller.sent_files import Use
    from labctl.model.yaml_text import parse_yaml

    content, source, files = open_local_spec(Path(name))
    found = {(Use.SPEC, str(Path(name))): _pack(Use.SPEC, str(Path(name)), content)}
    size = len(content)
    try:
        value = parse_yaml(content.decode("utf-8-sig"), source).value
    except (UnicodeDecodeError, InvalidError):
        value = None  # the server tells what is wrong with it, as it does here
    for use, named, limit in list_named_files(value):
        if (use, named) in found:
            continue
        try:
            is_protected = use is Use.PROTECTED
            read = files.load_protected(named) if is_protected else files.read(named, limit)
            found[use, named] = _pack(use, named, read)
            size += len(read)
        except InvalidError as error:
            found[use, named] = {"use": use.value, "name": named, "fault": error.brief}
    if size > _LIMIT:
        raise InvalidError(
            f"spec {source!r} and its files have more than {_LIMIT >> 20} MiB together",
            hint="let instances fetch large files: extensions with a url",
        )
    return list(found.values())


def _pack(use: Json, name: str, content: bytes) -> dict[str, Json]:
    text = base64.b64encode(content).decode("ascii")
    return {"use": use.value, "name": name, "content": text}


def pack_recipe(name: str) -> tuple[list[dict[str, Json]], dict[str, str]]:
    """The files of an image recipe and of what it includes, and where the recipe is in them."""
    from labctl.controller.sent_files import Use
    from labctl.drivers.recipe import load_recipe

    folder = Path(name).expanduser().absolute()
    included = load_recipe(folder).include
    folders = [Path(os.path.normpath(folder / each)) for each in (".", *included)]
    # One level above, so that the recipe keeps its own name.
    common = Path(os.path.commonpath([each.parent for each in folders]))
    found: list[dict[str, Json]] = []
    size = 0
    try:
        for path in sorted({path for each in folders for path in _list_files(each)}):
            content = path.read_bytes()
            size += len(content)
            if size > _LIMIT or len(found) >= _MOST_FILES:
                raise InvalidError(
                    f"recipe {name!r} has more than {_MOST_FILES} files or {_LIMIT >> 20} MiB",
                    hint="build it on the server's host: labctl image build",
                )
            packed = _pack(Use.RECIPE, path.relative_to(common).as_posix(), content)
            found.append(packed | {"isProgram": os.access(path, os.X_OK)})
    except OSError as error:
        raise InvalidError(f"recipe {name!r} cannot be read", detail=str(error)) from error
    return found, {name: folder.relative_to(common).as_posix()}


def _list_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
