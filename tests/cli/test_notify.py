"""The commands for receivers."""

import json

import pytest

from labctl.cli.app import main
from labctl.errors import ExitCode
from labctl.model.notification import Notification
from labctl.store.receivers import save_receivers
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.drivers.webhook_server import WebhookServer


@pytest.fixture
def run(web, tmp_path, capsys):
    def run_words(*words):
        code = main(["--state-dir", str(tmp_path), "notify", *words])
        return code, capsys.readouterr()

    return run_words


@pytest.fixture
def server(web):
    made = WebhookServer()
    receivers = [
        Notification(name=name, url=made.url + "?token=hush", allow_http=True)
        for name in ("nightly", "other")
    ]
    with web.write() as connection:
        save_receivers(connection, "web", receivers)
    yield made
    made.stop()


def test_receivers_are_listed_without_what_is_secret_in_their_url(run, server):
    code, told = run("list", "-o", "json")
    rows = json.loads(told.out)
    assert (code, [row["name"] for row in rows]) == (0, ["nightly", "other"])
    assert rows[0]["host"] == f"127.0.0.1:{server.port}"
    assert (rows[0]["signed"], rows[0]["error"]) == (False, None)
    assert "hush" not in told.out + run("list", "web")[1].out
    assert run("list", "nothing")[0] == ExitCode.NOT_FOUND


def test_a_test_tells_how_each_receiver_took_it(run, server):
    code, told = run("test", "web", "nightly")
    assert (code, told.out) == (0, "nightly: answered 200\n")
    server.answers = [(200, b"", {}), (500, b"", {})]
    code, told = run("test", "web", "-o", "json")
    assert code == ExitCode.FAILED
    assert [answer["told"] for answer in json.loads(told.out)] == [True, False]
    assert "1 of 2 receivers of 'web' could not be told" in told.err
    assert run("test", "web", "nobody")[0] == ExitCode.NOT_FOUND
