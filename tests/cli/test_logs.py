"""Log lines."""

import logging
import re

import pytest

from labctl.cli.logs import start_log


@pytest.fixture(autouse=True)
def restored():
    yield
    logging.getLogger("labctl").handlers.clear()


def _story():
    logging.getLogger("labctl.a").info("web-1: starting, disk %s is ready", 2)
    logging.getLogger("labctl.a").debug("detail")


def test_lines_go_to_stderr_only(capsys):
    start_log(verbose=False)
    _story()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.sub(r"^\S+Z ", "", captured.err, flags=re.M) == (
        "INFO web-1: starting, disk 2 is ready\n"
    )


def test_detail_is_for_those_who_ask(capsys):
    start_log(verbose=True)
    _story()
    assert capsys.readouterr().err.count("detail\n") == 1


def test_a_terminal_shows_only_warnings(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    start_log(verbose=False)
    _story()
    logging.getLogger("labctl.a").warning("disk is nearly full")
    assert capsys.readouterr().err.endswith("Z WARNING disk is nearly full\n")


def test_exceptions_keep_their_traceback(capsys):
    start_log(verbose=False)
    try:
        int("odd")
    except ValueError:
        logging.getLogger("labctl.b").exception("listener failed at %s", "web_1")
    text = capsys.readouterr().err
    assert "ERROR listener failed at web_1\nTraceback" in text
    assert text.endswith("'odd'\n")


def test_starting_twice_tells_everything_once(capsys):
    start_log(verbose=False)
    start_log(verbose=False)
    logging.getLogger("labctl").info("once")
    assert capsys.readouterr().err.count("once") == 1
