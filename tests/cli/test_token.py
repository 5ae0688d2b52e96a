"""`labctl token` and `labctl audit`: what they print and what they refuse."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from labctl.cli.app import main
from labctl.store.audit import add_audit_entry
from labctl.store.database import Database
from labctl.store.tokens import find_client, find_token


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command; its exit code and its output, as JSON where it is."""

    def run(*words, output="json"):
        code = main([*words, "--state-dir", str(tmp_path), "-o", output])
        said = capsys.readouterr()
        if code:
            return code, said.err
        return code, json.loads(said.out) if output == "json" else said.out

    return run


def test_a_token_is_made_shown_once_listed_and_revoked(run, tmp_path):
    _, made = run("token", "create", "ci", "--scope", "operate", "--expires", "90d")
    assert made["token"].startswith("labctl_")
    assert len(made["token"]) == len("labctl_") + 43  # 32 bytes
    now = datetime.now(UTC)
    database = Database(tmp_path / "labctl.db")
    with database.read() as connection:
        found = find_token(connection, made["token"], now=now)
        assert found == find_client(connection, made["clientId"], now=now)
    assert timedelta(days=89) < found.expires_at - now <= timedelta(days=90)
    assert made["token"].encode() not in (tmp_path / "labctl.db").read_bytes()

    _, (row,) = run("token", "list")
    assert (row["name"], row["scope"], row["state"]) == ("ci", "operate", "good")
    assert row["clientId"] == made["clientId"]
    assert made["token"] not in run("token", "list", output="table")[1]

    assert run("token", "revoke", "ci")[1]["state"] == "revoked"
    with database.read() as connection:
        assert find_token(connection, made["token"], now=now) is None
    database.close()
    assert run("token", "list")[1][0]["state"] == "revoked"
    assert run("token", "revoke", "ci")[0] == 3


def test_two_good_tokens_with_one_name_would_be_one_in_the_audit_log(run):
    assert run("token", "create", "ci", "--scope", "read")[0] == 0
    code, said = run("token", "create", "ci", "--scope", "read")
    assert (code, "labctl token revoke ci" in said) == (4, True)
    assert run("token", "revoke", "ci")[0] == 0
    assert run("token", "create", "ci", "--scope", "read")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a b", "--scope", "read"], "is no name for a token"),
        (["--scope", "read"], "NAME"),
        (["ci"], "--scope"),
        (["ci", "--scope", "root"], "root"),
        (["ci", "--scope", "read", "--expires", "soon"], "--expires 'soon' must be"),
        (["ci", "--scope", "read", "--expires", "0s"], "over at once"),
        (["ci", "--scope", "read", "--expires", "9999999d"], "--expires"),
    ],
)
def test_a_token_that_cannot_be_meant_is_refused(run, words, said):
    code, text = run("token", "create", *words)
    assert code == 2
    assert said in text
    assert run("token", "list")[1] == []


def test_audit_lists_the_newest_entries_last(run, tmp_path):
    database = Database(tmp_path / "labctl.db")
    with database.write() as connection:
        for number in range(3):
            add_audit_entry(
                connection,
                at=datetime(2026, 5, 4, 12, number, tzinfo=UTC),
                who="ci",
                address="127.0.0.1",
                method="PUT",
                path=f"/subscriptions/{number}",
                status=201,
                code="",
                request_id=str(number),
            )
    database.close()
    assert [entry["requestId"] for entry in run("audit", "--limit", "2")[1]] == ["1", "2"]
    table = run("audit", output="table")[1].splitlines()
    assert table[0].split() == ["AT", "WHO", "ADDRESS", "METHOD", "STATUS", "CODE", "PATH"]
    assert table[3].split() == [
        *("2026-05-04T12:02:00Z", "ci", "127.0.0.1", "PUT", "201", "-", "/subscriptions/2"),
    ]


def test_audit_of_a_lab_that_nobody_asked_anything(run):
    assert run("audit")[1] == []
    assert "nothing" in run("audit", output="table")[1]
