"""`labctl doctor` as a user meets it."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.cli.app import main

pytestmark = [
    pytest.mark.host,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="checks the system's daemons"),
]


@pytest.fixture(autouse=True)
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="labctl test ", dir="/var/tmp"))
    place.chmod(0o711)
    monkeypatch.setenv("LABCTL_STATE_DIR", str(place))
    monkeypatch.setenv("LABCTL_ACCELERATION", "tcg")
    monkeypatch.delenv("LABCTL_URI", raising=False)
    yield place
    shutil.rmtree(place)


def test_a_ready_host_ends_with_0_and_warnings_have_hints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "acceleration" in printed
    assert "emulation: LABCTL_ACCELERATION says so" in printed
    assert "problem" not in printed


def test_a_problem_ends_with_6_and_fix_mends_it(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = state_dir / "labctl.db"
    sqlite3.connect(store).close()
    store.touch()
    store.chmod(0o644)
    assert main(["doctor"]) == 6
    printed = capsys.readouterr().out
    assert f"store: run: chmod 0600 '{store}'" in printed
    assert "labctl doctor --fix" in printed

    assert main(["doctor", "-o", "json"]) == 6
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows if row["status"] == "problem"] == ["store"]

    assert main(["doctor", "--fix", "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert f"store: chmod 0600 '{store}'" in captured.err
    assert all(row["status"] != "problem" for row in json.loads(captured.out))
    assert main(["doctor"]) == 0
