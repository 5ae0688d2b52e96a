"""Whole labctl commands, run here for `labctl --server`, and the files that they need."""

import asyncio
import base64
import binascii
import json
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeGuard

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from labctl.api.auth import is_still_allowed
from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.guard import read_body
from labctl.api.route import MIB, Route
from labctl.arm.errors import ArmError, invalid
from labctl.controller.commands import RECIPES, Run, make_link_name
from labctl.controller.remote_rules import find_scope
from labctl.controller.sent_files import SentFile, Use, check_recipe_path
from labctl.controller.uploads import Upload, find_upload, remove_old_uploads
from labctl.drivers.live_program import Piece
from labctl.model.access import Scope

_LIMIT = 24 * MIB  # of a request; base64 makes four bytes of three
_READ_LIMIT = MIB  # of one from who may only read, and has no files to send
_FILES_LIMIT = 16 * MIB  # of what is in it
_MOST_FILES = 200
_HEARTBEAT = 10.0  # seconds
_BLOCK = MIB  # bytes of an upload that are written at a time

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    words: tuple[str, ...]
    files: tuple[SentFile, ...]
    uploads: dict[str, str]  # ids by the word that stands for them
    recipes: dict[str, str]  # paths among the files, likewise


async def run_command(desk: Desk, call: Call, request: Request) -> Response:
    """Run one command; its output comes as lines of JSON, the last one with its exit code."""
    may_write = call.principal.scope.allows(Scope.OPERATE)
    content = await read_body(request, _LIMIT if may_write else _READ_LIMIT)
    asked = await run_in_threadpool(_parse, content)
    request.scope["labctl.note"] = _make_note(asked.words)
    needed = find_scope(asked.words)
    if not call.principal.scope.allows(needed):
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The token '{call.principal.name}' has the scope '{call.principal.scope}'; "
            f"labctl {' '.join(asked.words[:2])} needs '{needed}'.",
        )
    has_more = asked.uploads or any(each.use is Use.RECIPE for each in asked.files)
    if has_more and not call.principal.scope.allows(Scope.ADMIN):
        raise ArmError(403, "AuthorizationFailed", "Images and recipes need the scope 'admin'.")
    words, links = _place(desk, asked)
    run = await desk.commands.start(
        desk.settings,
        words,
        scope=call.principal.scope,
        files=asked.files,
        links=links,
        stop=desk.stop,
    )
    for path in links.values():
        path.unlink(missing_ok=True)  # the command has a link of its own
    return StreamingResponse(_Lines(desk, call, run), media_type="application/x-ndjson")


async def take_upload(desk: Desk, call: Call, request: Request) -> Response:
    """Keep a file for the command that is to come; answers with its id and checksum."""
    await run_in_threadpool(remove_old_uploads, desk.settings, now=call.now)
    announced = call.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() and len(announced) < 19 else None
    upload = await run_in_threadpool(Upload, desk.settings, size)
    try:
        block = bytearray()
        async for chunk in request.stream():
            block += chunk
            if len(block) >= _BLOCK:
                await run_in_threadpool(upload.write, bytes(block))
                block.clear()
        await run_in_threadpool(upload.write, bytes(block))
        wanted = call.query.get("sha256", "").lower()
        if wanted not in {"", upload.sha256}:
            raise invalid(
                f"The file's sha256 is {upload.sha256}, not {wanted[:64]}; it was damaged on its "
                "way.",
                target="sha256",
            )
        await run_in_threadpool(upload.keep)
    finally:
        await run_in_threadpool(upload.close)
    body = {"id": upload.id, "size": upload.size, "sha256": upload.sha256}
    return JSONResponse(body, status_code=201)


class _Lines:
    """The output as lines of JSON. The command ends with the client, however that goes."""

    def __init__(self, desk: Desk, call: Call, run: Run) -> None:
        self._desk = desk
        self._call = call
        self._run = run

    def __del__(self) -> None:
        self._run.leave()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._tell()

    async def _tell(self) -> AsyncIterator[bytes]:
        try:
            yield b"\n"  # it runs
            asked_at = monotonic()
            while True:
                if monotonic() - asked_at >= _HEARTBEAT:
                    if not await is_still_allowed(self._desk, self._call):
                        return  # who may no longer begin it may not go on with it, either
                    asked_at = monotonic()
                try:
                    async with asyncio.timeout(_HEARTBEAT):
                        piece = await self._run.read()
                except TimeoutError:
                    yield b"\n"
                    continue
                if piece is None:
                    break
                yield _render(piece)
            yield json.dumps({"exit": await self._run.wait()}).encode() + b"\n"
        finally:
            self._run.leave()


def _render(piece: Piece) -> bytes:
    try:
        line: Json = {piece.stream: piece.content.decode()}
    except UnicodeDecodeError:  # a character that comes in two pieces, or no text at all
        line = {f"{piece.stream}64": base64.b64encode(piece.content).decode("ascii")}
    return json.dumps(line).encode() + b"\n"


def _parse(content: bytes) -> _Asked:
    """Raises ArmError."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", "The request's body is not JSON.") from error
    if not isinstance(document, dict):
        raise ArmError(400, "InvalidRequestContent", "The request's body must be a JSON object.")
    words = document.get("argv")
    if not isinstance(words, list) or not words or not all(_is_text(word) for word in words):
        raise invalid("argv must be a list of words that begins with a command.", target="argv")
    uploads = _parse_words(document, "uploads")
    recipes = _parse_words(document, "recipes")
    files = document.get("files", [])
    if not isinstance(files, list) or len(files) > _MOST_FILES:
        raise invalid(f"files must be a list of at most {_MOST_FILES} files.", target="files")
    found = tuple(_parse_file(each, f"files[{place}]") for place, each in enumerate(files))
    if sum(len(each.content) for each in found) > _FILES_LIMIT:
        raise invalid(f"The files have more than {_FILES_LIMIT} bytes together.", target="files")
    return _Asked(words=tuple(words), files=found, uploads=uploads, recipes=recipes)


def _parse_words(document: Json, key: str) -> dict[str, str]:
    found = document.get(key, {})
    if not isinstance(found, dict) or not all(map(_is_text, (*found, *found.values()))):
        raise invalid(f"{key} must name, by words of argv, what stands for them.", target=key)
    return found


def _parse_file(value: Json, at: str) -> SentFile:
    uses = [use.value for use in Use]
    if not isinstance(value, dict) or value.get("use") not in uses:
        raise invalid(f"{at} must be an object with a use of {', '.join(uses)}.", target=at)
    name, fault = value.get("name"), value.get("fault", "")
    if not _is_text(name) or not _is_text(fault):
        raise invalid(f"{at} must have a name, and content or a fault.", target=at)
    try:
        content = base64.b64decode(value.get("content", ""), validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise invalid(f"{at}.content is not base64.", target=at) from error
    return SentFile(
        use=Use(value["use"]),
        name=name,
        content=content,
        fault=fault,
        is_program=value.get("isProgram") is True,
    )


def _is_text(value: Json) -> TypeGuard[str]:
    """A string without half characters."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(desk: Desk, asked: _Asked) -> tuple[tuple[str, ...], dict[str, Path]]:
    """The words with the names that the uploads get, and where these are."""
    words, links = list(asked.words), {}
    for word, identifier in asked.uploads.items():
        name = make_link_name(word)
        links[name] = find_upload(desk.settings, identifier)
        _replace(words, word, name)
    for word, path in asked.recipes.items():
        _replace(words, word, f"{RECIPES}/{check_recipe_path(path)}")
    return tuple(words), links


def _replace(words: list[str], word: str, by: str) -> None:
    if word not in words[1:]:
        raise invalid(f"'{word[:200]}' is no word of argv.", target="argv")
    # The last one: words before it may be the command's.
    words[len(words) - 1 - words[::-1].index(word)] = by


def _make_note(words: tuple[str, ...]) -> str:
    """For the log of who did what: without what is run in a guest."""
    shown = words[: words.index("--")] if "--" in words else words
    return f"labctl {shlex.join(shown)[:500]}"


_TEXT = {"type": "string"}
ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/labctl/v1/commands",
        stream=run_command,
        limit=_LIMIT,
        summary="Run one labctl command; its output comes as lines of JSON",
        needs_version=False,
        request={
            "type": "object",
            "required": ["argv"],
            "properties": {
                "argv": {"type": "array", "items": _TEXT, "minItems": 1, "examples": [["list"]]},
                "files": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["use", "name"],
                        "properties": {
                            "use": {"enum": [use.value for use in Use]},
                            "name": _TEXT,
                            "content": {"type": "string", "contentEncoding": "base64"},
                            "fault": _TEXT,
                            "isProgram": {"type": "boolean"},
                        },
                    },
                },
                "uploads": {"type": "object", "additionalProperties": _TEXT},
                "recipes": {"type": "object", "additionalProperties": _TEXT},
            },
        },
        response={
            "type": "string",
            "description": "Lines: {stdout: text}, {stderr: text}, {stdout64: base64}, "
            "{stderr64: base64}, at last {exit: code}; empty ones show that it still runs.",
        },
        media_type="application/x-ndjson",
    ),
    Route(
        method="POST",
        path="/labctl/v1/uploads",
        stream=take_upload,
        scope=Scope.ADMIN,
        summary="Send a disk image for the command that imports it",
        needs_version=False,
        query={"sha256": "The checksum that the file must have."},
        request={"type": "string", "format": "binary"},
        request_type="application/octet-stream",
        response={
            "type": "object",
            "required": ["id", "size", "sha256"],
            "properties": {"id": _TEXT, "size": {"type": "integer"}, "sha256": _TEXT},
        },
        statuses=(201,),
    ),
)
