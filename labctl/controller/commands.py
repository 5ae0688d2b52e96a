"""Runs one labctl command for a client of the API, as a program of its own."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from labctl.controller.sent_files import SentFile, write_recipe, write_sent_files
from labctl.drivers.live_program import LiveProgram, Piece
from labctl.errors import HostError, RefusedError
from labctl.model.access import Scope
from labctl.settings import REMOTE_SCOPE, SENT_FILES, Settings, make_passable

RECIPES = "recipes"  # below the directory in which a command runs

_AT_ONCE = 16
_GLANCE = 0.25  # seconds between two looks whether the server stops
_KEPT_VARIABLES = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "TZ", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH"}
    | {"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
)
# Those of a client, and what points elsewhere than the server itself does.
_OWN_VARIABLES = ("LABCTL_SERVER", "LABCTL_CA", "LABCTL_TOKEN", "LABCTL_STATE_DIR", "LABCTL_URI")

log = logging.getLogger(__name__)


class Run:
    """One command that runs. Read its pieces until there are no more, or call `leave`."""

    def __init__(self, program: LiveProgram, folder: Path, stop: threading.Event) -> None:
        self._program = program
        self._folder = folder
        self._stop = stop
        self._gone = asyncio.Event()
        self.supervisor = asyncio.create_task(self._supervise(), name=f"command {folder.name}")

    async def read(self) -> Piece | None:
        """The next piece of output; None: it has ended."""
        return await self._program.read()

    async def wait(self) -> int:
        """The exit code, when nothing is left of it."""
        code = await self._program.wait()
        await asyncio.shield(self.supervisor)
        return code

    def leave(self) -> None:
        """The client is gone: end it as Ctrl-C does. What it has wished for stays."""
        self._gone.set()

    async def _supervise(self) -> None:
        ending = asyncio.create_task(self._program.finish())
        try:
            while not ending.done():
                await asyncio.wait((ending,), timeout=_GLANCE)
                if self._gone.is_set():
                    self._program.stop_listening()
                if self._gone.is_set() or self._stop.is_set():
                    await self._program.end()
        finally:
            if not ending.done() or ending.cancelled():  # the event loop is ending
                await self._program.abandon()
            shutil.rmtree(self._folder, ignore_errors=True)


class Commands:
    """All commands that run for clients."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._starting = 0  # they count, too: many may come in the same instant

    async def start(
        self,
        settings: Settings,
        words: Sequence[str],
        *,
        scope: Scope,
        files: Sequence[SentFile],
        links: Mapping[str, Path],
        stop: threading.Event,
    ) -> Run:
        """Start a command; `links` are files of this host that it finds under the client's names.

        Raises RefusedError while too many run, HostError when it cannot be started.
        """
        if self.running >= _AT_ONCE:
            raise RefusedError(
                f"{_AT_ONCE} commands run for clients already", hint="try again when one has ended"
            )
        self._starting += 1
        try:
            run = await self._start(settings, words, scope, files, links, stop)
            self._running.add(run.supervisor)
        finally:
            self._starting -= 1
        run.supervisor.add_done_callback(self._forget)
        return run

    async def _start(
        self,
        settings: Settings,
        words: Sequence[str],
        scope: Scope,
        files: Sequence[SentFile],
        links: Mapping[str, Path],
        stop: threading.Event,
    ) -> Run:
        folder = await asyncio.to_thread(_prepare, settings, files, links)
        environment = _make_environment(settings, scope, folder)
        try:
            program = await LiveProgram.start(
                (sys.executable, "-P", "-m", "labctl", *words),
                environment=environment,
                directory=folder / "work",
            )
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | ValueError):
                raise HostError("the command cannot be started", detail=str(error)) from error
            raise
        return Run(program, folder, stop)

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running) + self._starting

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a command of a client could not be watched", exc_info=task.exception())


def remove_leftovers(settings: Settings) -> None:
    """Remove what commands of a server that was killed have left; specs may hold secrets."""
    shutil.rmtree(_find_parent(settings), ignore_errors=True)


def _find_parent(settings: Settings) -> Path:
    return settings.api_dir / "commands"


def _prepare(settings: Settings, files: Sequence[SentFile], links: Mapping[str, Path]) -> Path:
    parent = _find_parent(settings)
    try:
        make_passable(settings.state_dir)
        settings.api_dir.mkdir(mode=0o700, exist_ok=True)
        parent.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            _fill(folder, files, links)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise HostError(
            "what the client has sent cannot be written",
            detail=str(error),
            hint="free space on the server's host: labctl doctor",
        ) from error
    return folder


def _fill(folder: Path, files: Sequence[SentFile], links: Mapping[str, Path]) -> None:
    (folder / "work").mkdir()
    write_sent_files(folder / "sent", files)
    write_recipe(folder / "work" / RECIPES, files)
    for name, source in links.items():
        (folder / "work" / name).hardlink_to(source)


def make_link_name(name: str) -> str:
    """The name under which a command finds an upload: the last part of what its user wrote."""
    last = PurePosixPath(name).name
    is_plain = last not in {"", ".", ".."} and not last.startswith("-") and "\0" not in last
    return last if is_plain and len(last.encode()) < 200 else "upload"


def _make_environment(settings: Settings, scope: Scope, folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES
        or (name.startswith("LABCTL_") and not name.startswith(_OWN_VARIABLES))
    }
    return {
        "LANG": "C.UTF-8",
        **kept,
        "LABCTL_STATE_DIR": str(settings.state_dir),
        "LABCTL_URI": settings.uri,
        REMOTE_SCOPE: scope.value,
        SENT_FILES: str(folder / "sent"),
    }
