"""Runs a program whose output is read as it comes, in an event loop; never by a shell."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

_CHUNK = 64 * 1024  # bytes
_QUEUE = 16  # chunks that wait for a slow reader; then the program waits
_LAST_WORDS = 2.0  # seconds for output that others hold open after the program's end
_PATIENCE = ((signal.SIGINT, 20.0), (signal.SIGTERM, 5.0))  # then SIGKILL

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of what a program has written."""

    stream: Stream
    content: bytes


class LiveProgram:
    """One running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue(_QUEUE)
        self._is_heard = True
        self._pump = asyncio.create_task(self._read_all(), name=f"output of {process.pid}")

    @classmethod
    async def start(
        cls, words: Sequence[str], *, environment: Mapping[str, str], directory: Path
    ) -> Self:
        """Start it in a session of its own, with nothing to read. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        return cls(process)

    async def read(self) -> Piece | None:
        """The next piece; None: there is no more."""
        return await self._pieces.get()

    async def wait(self) -> int:
        """The exit code, as a shell would tell it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def finish(self) -> None:
        """Until it has ended and all of its output was taken."""
        await asyncio.shield(self._pump)

    def stop_listening(self) -> None:
        """Nobody reads any more; what it writes is thrown away, so that it does not wait for us."""
        self._is_heard = False
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def end(self) -> None:
        """Ask it to end as Ctrl-C does; then less kindly."""
        for number, seconds in _PATIENCE:
            self._signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._process.wait()
                    return
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """End it at once, with all that it has started in its session."""
        self._signal(signal.SIGKILL)

    async def abandon(self) -> None:
        """End it at once and let go of it; for an event loop that is about to end."""
        self.kill()
        await self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        # By itself, asyncio closes pipes only when their other ends are closed.
        self._process._transport.close()  # type: ignore[attr-defined]

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _read_all(self) -> None:
        process = self._process
        if process.stdout is None or process.stderr is None:
            raise LookupError("the program has no pipes")
        readers = [
            asyncio.create_task(self._copy("stdout", process.stdout)),
            asyncio.create_task(self._copy("stderr", process.stderr)),
        ]
        await process.wait()
        # What it has started may live on and hold the pipe; a slow reader may have all the time.
        _, late = await asyncio.wait(readers, timeout=_LAST_WORDS)
        while late and self._is_heard and self._pieces.full():
            _, late = await asyncio.wait(late, timeout=_LAST_WORDS)
        for reader in late:
            reader.cancel()
        if late:
            self._close_pipes()
        if self._is_heard:
            await self._pieces.put(None)

    async def _copy(self, stream: Stream, source: asyncio.StreamReader) -> None:
        while content := await source.read(_CHUNK):
            if self._is_heard:
                await self._pieces.put(Piece(stream=stream, content=content))
