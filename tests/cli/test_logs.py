"""Log lines."""

import logging
import re

import pytest
import structlog

from labctl.cli.logs import start_log


@pytest.fixture(autouse=True)
def restored():
    yield
    structlog.reset_defaults()
    logging.getLogger("labctl").handlers.clear()


def _story():
    logging.getLogger("labctl.a").info("web-1: starting, disk %s is ready", 2)
    structlog.get_logger("labctl.b").info("hypervisor is back", uri="test:///default")
    logging.getLogger("labctl.a").debug("detail")
    structlog.get_logger("labctl.b").debug("more detail")


def test_lines_of_both_kinds_go_to_stderr_only(capsys):
    start_log(verbose=False)
    _story()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.sub(r"^\S+Z ", "", captured.err, flags=re.M) == (
        "INFO web-1: starting, disk 2 is ready\nINFO hypervisor is back uri='test:///default'\n"
    )


def test_detail_is_for_those_who_ask(capsys):
    start_log(verbose=True)
    _story()
    assert capsys.readouterr().err.count("detail\n") == 2


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
        structlog.get_logger("labctl.b").exception("listener failed", domain="web_1")
    text = capsys.readouterr().err
    assert "ERROR listener failed domain='web_1'\nTraceback" in text
    assert text.endswith("'odd'\n")


def test_starting_twice_tells_everything_once(capsys):
    start_log(verbose=False)
    start_log(verbose=False)
    logging.getLogger("labctl").info("once")
    assert capsys.readouterr().err.count("once") == 1
