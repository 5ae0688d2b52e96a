import json

import pytest

from labctl.cli.app import main
from labctl.errors import ExitCode
from tests.drivers.publishers import shelves
from tests.drivers.publishers.server import PublisherServer

DEBIAN = ["debian", "genericcloud", "12"]
NAME = "debian-12-genericcloud"


@pytest.fixture(autouse=True)
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    server = PublisherServer()
    shelves.fill(server, b"an image")
    shelves.set_mirrors(server, monkeypatch)
    yield server
    server.close()


def follow(*words):
    return main(["image", "follow", *words])


def rows(capsys):
    capsys.readouterr()
    assert main(["image", "followed", "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_wish_is_kept_as_it_was_made(capsys):
    words = ["--every", "90m", "--no-publish", "--require-signature", "--architecture", "aarch64"]
    assert follow(*DEBIAN, *words) == 0
    assert "follows debian genericcloud 12 aarch64, every 1h30m" in capsys.readouterr().out
    assert rows(capsys) == [
        {
            "definition": f"{NAME}-aarch64",
            "follows": "debian genericcloud 12 aarch64",
            "publisher": "debian",
            "offer": "genericcloud",
            "sku": "12",
            "architecture": "aarch64",
            "newest": None,
            "every": 5400,
            "publish": False,
            "requireSignature": True,
            "checkedAt": None,
            "nextAt": None,
            "trouble": None,
            "failures": 0,
        }
    ]


def test_once_more_changes_how_and_does_not_add(capsys):
    assert follow(*DEBIAN) == 0
    assert follow(*DEBIAN, "--every", "1h", "-o", "json") == 0
    assert [(row["definition"], row["every"], row["publish"]) for row in rows(capsys)] == [
        (NAME, 3600, True)
    ]
    assert main(["image", "followed"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[-3:] == ["at", "once", "-"]


def test_a_definition_follows_one_thing(capsys):
    assert follow(*DEBIAN) == 0
    assert follow("ubuntu", "server", "24.04", "--definition", NAME) == ExitCode.REFUSED
    told = capsys.readouterr().err
    assert f"image definition {NAME!r} follows debian genericcloud 12" in told
    assert f"labctl image unfollow {NAME}" in told


def test_unfollowing_says_what_is_followed_when_it_does_not_fit(capsys):
    assert follow(*DEBIAN) == 0
    assert main(["image", "unfollow", "debian"]) == ExitCode.NOT_FOUND
    assert f"these do: {NAME}" in capsys.readouterr().err
    assert main(["image", "unfollow", NAME]) == 0
    assert rows(capsys) == []
    assert main(["image", "followed"]) == 0
    assert "no definition follows a publisher" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([*DEBIAN, "--every", "soon"], ExitCode.INVALID, "--every 'soon' must be a duration"),
        ([*DEBIAN, "--every", "5s"], ExitCode.INVALID, "not between 1 minute and 30 days"),
        ([*DEBIAN, "--every", "31d"], ExitCode.INVALID, "not between 1 minute and 30 days"),
        ([*DEBIAN, "--definition", "../x"], ExitCode.INVALID, "is not a name"),
        (["debian", "genericcloud", "99"], ExitCode.NOT_FOUND, "has no SKU '99'"),
        (["debain", "genericcloud", "12"], ExitCode.NOT_FOUND, "publisher 'debain' is not known"),
    ],
    ids=["no duration", "too often", "too seldom", "no name", "no sku", "no publisher"],
)
def test_what_is_wrong_is_refused_before_anything_is_kept(words, code, told, capsys):
    assert follow(*words) == code
    assert told in capsys.readouterr().err
    assert rows(capsys) == []


def test_a_publisher_that_is_down_is_followed_from_what_is_cached(server, capsys):
    assert main(["image", "skus", *DEBIAN[:2]]) == 0
    server.is_down = True
    assert follow(*DEBIAN) == 0
    assert follow("ubuntu", "server", "24.04") == ExitCode.FAILED
    assert [row["publisher"] for row in rows(capsys)] == ["debian"]
