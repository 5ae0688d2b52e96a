"""How a download goes: a bar on a terminal, one line for each event and each quarter elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from labctl.cli.context import Context
from labctl.cli.output import Output
from labctl.cli.progress import format_event
from labctl.controller.clock import now

if TYPE_CHECKING:
    from rich.progress import Progress

_STEP = 2**28  # bytes (256 MiB) between two lines when the whole length is not known


class DownloadProgress(Protocol):
    """Shows how one download goes."""

    def say(self, line: str) -> None:
        """Tell what happened."""

    def show(self, done: int, total: int | None) -> None:
        """Take over how many bytes are there, and of how many."""


@contextmanager
def download_progress(context: Context, subject: str) -> Iterator[DownloadProgress]:
    """Choose the form that suits where the output goes."""
    if not (context.is_tty and context.output is Output.TABLE):
        yield _Lines(subject, context.story)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(highlight=False),
        transient=True,
    ) as bars:
        yield _Bar(subject, bars)


class _Lines:
    """Complete lines, so that logs can be followed."""

    def __init__(self, subject: str, stream: TextIO) -> None:
        self._subject = subject
        self._stream = stream
        self._told: tuple[int | None, int] = (None, 0)

    def say(self, line: str) -> None:
        """Write the line."""
        print(format_event(now(), self._subject, "pull", line), file=self._stream, flush=True)

    def show(self, done: int, total: int | None) -> None:
        """Write a line for each quarter."""
        part = (total, done * 4 // total if total else done // _STEP)
        if part == self._told or not part[1]:
            return
        self._told = part
        whole = f" of {total / 2**20:.1f}" if total else ""
        self.say(f"{done / 2**20:.1f}{whole} MiB")


class _Bar:
    """A bar at the bottom of the terminal; the events scroll above it."""

    def __init__(self, subject: str, bars: "Progress") -> None:
        self._subject = subject
        self._bars = bars
        self._task = bars.add_task(subject, total=None)

    def say(self, line: str) -> None:
        """Print the line above the bar."""
        from rich.text import Text

        text = Text(format_event(now(), self._subject, "pull", line))
        self._bars.console.print(text, soft_wrap=True)

    def show(self, done: int, total: int | None) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done, total=total)
