"""Progress on a terminal and elsewhere."""

import io
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from labctl.cli.context import Context
from labctl.cli.output import Output
from labctl.cli.progress import (
    LineProgress,
    LiveProgress,
    StatusRow,
    draw_table,
    format_event,
    open_progress,
)
from labctl.settings import Settings

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
ROW = StatusRow(
    instance="web_1",
    version="1.1.0",
    power="Running",
    health="Initializing",
    doing="waiting for health, 41 s of 300 s left",
    since=NOW - timedelta(seconds=259),
)
CONTEXT = Context(
    settings=Settings(state_dir=Path("/nowhere"), uri="test:///default"),
    output=Output.TABLE,
    is_tty=False,
    verbose=False,
)


def _console(*, height=24):
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=height)


def _render(rows, *, height=24):
    console = Console(file=io.StringIO(), width=100, height=height)
    console.print(draw_table(rows, NOW, height=height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_elsewhere_each_event_is_one_line():
    stream = io.StringIO()
    with closing(LineProgress(stream)) as progress:
        progress.status([ROW])
        progress.event(NOW, "web_1", "started", "generation 2\nnext line")
    assert stream.getvalue() == "2026-11-23T01:02:03Z web_1 started generation 2 next line\n"


def test_lines_are_chosen_where_nobody_watches_or_a_program_reads():
    with closing(open_progress(CONTEXT)) as progress:
        assert isinstance(progress, LineProgress)
    with closing(open_progress(replace(CONTEXT, is_tty=True, output=Output.JSON))) as progress:
        assert isinstance(progress, LineProgress)


def test_lines_keep_out_of_json(capsys):
    with closing(open_progress(replace(CONTEXT, output=Output.JSON))) as progress:
        progress.event(NOW, "web_1", "started", "generation 2")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == format_event(NOW, "web_1", "started", "generation 2") + "\n"


def test_the_table_says_what_each_instance_does_for_how_long_and_why():
    idle = StatusRow(instance="web_0", version="1.0.0", power="Running", health="Healthy")
    assert _render([idle, ROW]) == [
        "INSTANCE  VERSION  POWER    HEALTH        FOR    DOING",
        "web_0     1.0.0    Running  Healthy",
        "web_1     1.1.0    Running  Initializing  4m19s  waiting for health, 41 s of 300 s left",
    ]


def test_the_busy_are_shown_first_where_not_all_have_room():
    idle = [
        StatusRow(instance=f"web_{n}", version="1.0.0", power="Running", health="Healthy")
        for n in range(100, 130)
    ]
    lines = _render([*idle, ROW], height=8)
    assert len(lines) == 6
    assert lines[1].startswith("web_1 ")
    assert lines[-1] == "and 27 more: 27 Healthy"


def test_text_from_elsewhere_is_shown_as_it_is_and_cannot_steer_the_terminal():
    row = replace(ROW, doing="failed: [bold]x[/bold] \x1b[2J", since=None)
    assert _render([row])[1].endswith("failed: [bold]x[/bold]  [2J")


def test_the_live_table_ends_with_the_last_state_below_the_events():
    console = _console()
    with closing(LiveProgress(lambda: NOW, console)) as progress:
        progress.status([replace(ROW, health="Unhealthy")])
        progress.event(NOW, "web_1", "started", "generation 2")
        progress.status([replace(ROW, health="Healthy")])
    text = console.file.getvalue()
    assert "web_1 started generation 2" in text
    last = text[text.rindex("INSTANCE") :]
    assert "Healthy" in last
    assert "Unhealthy" not in last
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_closing_twice_and_late_news_do_no_harm():
    console = _console()
    progress = LiveProgress(lambda: NOW, console)
    progress.close()
    progress.status([ROW])
    progress.event(NOW, "web_1", "stopped", "")
    progress.close()
    assert "INSTANCE" in console.file.getvalue()
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_a_flood_of_changes_is_drawn_at_most_four_times_a_second():
    console = _console()
    started = datetime.now(UTC)
    with closing(LiveProgress(lambda: NOW, console)) as progress:
        while datetime.now(UTC) - started < timedelta(seconds=1):
            for number in range(50):
                progress.status([replace(ROW, doing=str(number))])
            threading.Event().wait(0.01)
    took = (datetime.now(UTC) - started).total_seconds()
    assert 1 <= progress.drawings <= 4 * took + 2


def test_nothing_of_rich_is_loaded_for_lines():
    code = (
        "import sys; from labctl.cli.progress import LineProgress; LineProgress(sys.stdout);"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "False\n"
