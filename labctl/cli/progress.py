"""Live progress: a table that stays on a terminal, or one line for each event elsewhere."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TextIO

from labctl.cli.context import Context
from labctl.cli.output import Output, format_cell, format_moment, format_span

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REFRESH_HZ = 1  # ages count in seconds; changes are drawn at once, but not faster than below
_SHORTEST_GAP = 0.25  # seconds between two drawings
_FRAME = 4  # lines that are not rows: heading, summary, the line of the cursor, one to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """What one instance is doing now."""

    instance: str
    version: str
    power: str
    health: str
    doing: str = ""  # with the reason, when it waits; empty: nothing, as it should be
    since: datetime | None = None  # when it began to do so


class Progress(Protocol):
    """Shows how work goes. Safe to call from several threads."""

    def event(self, at: datetime, subject: str, kind: str, message: str) -> None:
        """Tell what happened."""

    def status(self, rows: Sequence[StatusRow]) -> None:
        """Take over what every instance is doing now."""

    def close(self) -> None:
        """Leave the last state on the screen. Twice is fine."""


def open_progress(context: Context) -> Progress:
    """Choose the form that suits where the output goes; use it with `contextlib.closing`."""
    from labctl.controller.clock import now

    if context.is_tty and context.output is Output.TABLE:
        return LiveProgress(now)
    return LineProgress(context.story)


def format_event(at: datetime, subject: str, kind: str, message: str) -> str:
    """Write `2026-11-23T01:02:03Z web_1 started generation 2`."""
    return f"{format_moment(at)} {subject} {kind} {format_cell(message)}"


class LineProgress:
    """One line for each event, complete at once, so that logs can be followed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, at: datetime, subject: str, kind: str, message: str) -> None:
        """Write the line."""
        with self._lock:
            print(format_event(at, subject, kind, message), file=self._stream, flush=True)

    def status(self, rows: Sequence[StatusRow]) -> None:
        """Nothing: the events tell it."""

    def close(self) -> None:
        """Nothing is open."""


class LiveProgress:
    """A table at the bottom of the terminal, with the events scrolling above it."""

    def __init__(self, now: Callable[[], datetime], console: "Console | None" = None) -> None:
        """Start to draw on `console`, by default the terminal at stdout."""
        from rich.console import Console
        from rich.live import Live

        self.drawings = 0
        self._now = now
        self._lock = threading.Lock()
        self._rows: tuple[StatusRow, ...] = ()
        self._console = console or Console(highlight=False)
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._live = Live(
            _Drawing(self._draw), console=self._console, auto_refresh=False, transient=False
        )
        self._live.start()
        self._drawer = threading.Thread(target=self._redraw, name="progress", daemon=True)
        self._drawer.start()

    def event(self, at: datetime, subject: str, kind: str, message: str) -> None:
        """Print the line above the table."""
        from rich.text import Text

        self._console.print(Text(format_event(at, subject, kind, message)), soft_wrap=True)

    def status(self, rows: Sequence[StatusRow]) -> None:
        """Show other rows from the next drawing on."""
        with self._lock:
            if tuple(rows) == self._rows:
                return
            self._rows = tuple(rows)
        self._changed.set()

    def close(self) -> None:
        """Draw once more and give the terminal back."""
        self._closed.set()
        self._changed.set()
        self._drawer.join()
        self._live.stop()

    def _redraw(self) -> None:
        """Draw once a second for the ages, and soon after a change."""
        while not self._closed.is_set():
            self._changed.wait(1 / _REFRESH_HZ)
            self._changed.clear()
            self._live.refresh()
            self.drawings += 1
            self._closed.wait(_SHORTEST_GAP)

    def _draw(self) -> "RenderableType":
        with self._lock:
            rows = self._rows
        return draw_table(rows, self._now(), height=self._console.size.height)


class _Drawing:
    """Makes rich ask for a new table at each drawing, so that ages are right."""

    def __init__(self, draw: "Callable[[], RenderableType]") -> None:
        self._draw = draw

    def __rich__(self) -> "RenderableType":
        """Draw the present state."""
        return self._draw()


def draw_table(rows: Sequence[StatusRow], now: datetime, *, height: int) -> "RenderableType":
    """Draw what fits in `height` lines; the busy come first, the others are counted."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    room = max(1, height - _FRAME)
    shown = rows if len(rows) <= room else sorted(rows, key=lambda row: not row.doing)[:room]
    rest = [row for row in rows if row not in shown]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("INSTANCE", "VERSION", "POWER", "HEALTH", "FOR"):
        table.add_column(heading, no_wrap=True)
    table.add_column("DOING", no_wrap=True, overflow="ellipsis")
    for row in shown:
        age = (
            timedelta(seconds=max(0, int((now - row.since).total_seconds()))) if row.since else None
        )
        # Text, not str: rich reads [brackets] in a str as markup.
        table.add_row(
            Text(row.instance),
            Text(row.version),
            Text(row.power),
            Text(row.health, style=_STYLES.get(row.health, "")),
            Text("" if age is None else format_span(age)),
            Text(format_cell(row.doing) if row.doing else ""),
        )
    if not rest:
        return table
    counts = ", ".join(
        f"{count} {health}" for health, count in Counter(r.health for r in rest).items()
    )
    return Group(table, Text(f"and {len(rest)} more: {counts}"))


_STYLES = {"Healthy": "green", "Unhealthy": "red", "Initializing": "yellow"}
