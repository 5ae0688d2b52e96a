import io
import re

from labctl.cli.context import Context
from labctl.cli.download_progress import download_progress
from labctl.cli.output import Output
from labctl.settings import Settings


def _context(tmp_path, *, is_tty, output=Output.TABLE):
    settings = Settings(state_dir=tmp_path, uri="test:///default")
    return Context(settings=settings, output=output, is_tty=is_tty, verbose=False)


def _lines(capsys):
    return [re.sub(r"^\S+Z ", "", line) for line in capsys.readouterr().out.splitlines()]


def test_a_log_gets_one_line_for_each_event_and_each_quarter(tmp_path, capsys):
    with download_progress(_context(tmp_path, is_tty=False), "x/1.0.0") as progress:
        progress.say("begins")
        for done in range(0, 101, 5):
            progress.show(done * 2**20, 100 * 2**20)
    assert _lines(capsys) == [
        "x/1.0.0 pull begins",
        *(f"x/1.0.0 pull {part}.0 of 100.0 MiB" for part in (25, 50, 75, 100)),
    ]


def test_a_length_that_nobody_knows_is_told_in_larger_steps(tmp_path, capsys):
    with download_progress(_context(tmp_path, is_tty=False), "x/1.0.0") as progress:
        for done in (1, 2**28 - 1, 2**28, 2**28 + 1, 2**29):
            progress.show(done, None)
    assert _lines(capsys) == ["x/1.0.0 pull 256.0 MiB", "x/1.0.0 pull 512.0 MiB"]


def test_with_json_the_lines_go_to_stderr(tmp_path, capsys):
    context = _context(tmp_path, is_tty=True, output=Output.JSON)
    with download_progress(context, "x/1.0.0") as progress:
        progress.say("begins")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(" x/1.0.0 pull begins\n")


def test_a_terminal_gets_a_bar_with_the_events_above_it(tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with download_progress(_context(tmp_path, is_tty=True), "x/1.0.0") as progress:
        progress.say("a [b]line[/b]")
        progress.show(50_000_000, 100_000_000)
    assert "x/1.0.0 pull a [b]line[/b]" in screen.getvalue()
    assert "50.0/100.0 MB" in screen.getvalue()
