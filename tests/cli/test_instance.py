"""What the commands for single instances print, of a real store."""

import json
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest

from labctl.cli.app import main
from labctl.model.hook import HookKind
from labctl.settings import load_settings
from labctl.store.hooks import begin_hook_run, end_hook_run
from tests.controller.test_record import NOW, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture


@pytest.fixture(autouse=True)
def lab(web, tmp_path, monkeypatch):
    """The store is real; nobody asks libvirt."""
    found = SimpleNamespace(database=web, settings=load_settings(state_dir=tmp_path))

    @contextmanager
    def opened(context):
        yield found

    nothing = SimpleNamespace(actions=(), holds=())
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("labctl.cli.follow.opened_lab", opened)
    monkeypatch.setattr("labctl.controller.work.look_once", lambda lab, name: (view(web), nothing))


def record_runs(web, *outputs, begun):
    with web.write() as connection:
        for number, output in enumerate(outputs):
            moment = begun + timedelta(minutes=number)
            run = begin_hook_run(
                connection,
                scale_set="web",
                instance="web_0",
                created_at=NOW,
                upgrade=None,
                kind=HookKind.DRAIN,
                reason="restart",
                now=moment,
            )
            end_hook_run(
                connection,
                run.id,
                exit_code=0,
                has_failed=False,
                message="",
                output=output,
                now=moment,
            )


def test_an_instance_is_shown_with_what_its_latest_hooks_said(web, capsys):
    record_runs(web, "of an earlier web_0", begun=NOW - timedelta(days=1))
    record_runs(web, *(f"said {number}" for number in range(7)), begun=NOW + timedelta(hours=1))
    assert main(["instance", "show", "web_0", "-o", "json"]) == 0
    hooks = json.loads(capsys.readouterr().out)["hooks"]
    assert [run["output"] for run in hooks] == [f"said {number}" for number in range(1, 7)]
    assert (hooks[0]["upgrade"], hooks[0]["reason"]) == (None, "restart")
    assert main(["instance", "show", "web_0"]) == 0
    told = capsys.readouterr().out
    assert told.endswith("2026-11-23T01:06:00Z web_0 drain: succeeded\n    said 6\n")
    assert "said 0" not in told
