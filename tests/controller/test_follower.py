import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labctl.controller.follower import Follower
from labctl.controller.images import delete_image
from labctl.drivers.publishers.signature import VARIABLE
from labctl.model.following import Follow
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.follows import find_follow, remove_follow, save_follow
from labctl.store.gallery import load_versions
from tests.drivers.publishers import shelves
from tests.drivers.publishers.server import PublisherServer, listing, sha512
from tests.model.test_following import WISH

pytestmark = pytest.mark.host

FIRST = "12.20261001.2600"
SECOND = "12.20261101.2650"
FLATCAR = replace(
    WISH, definition="flatcar", publisher="flatcar", offer="container-linux", sku="stable"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two of them, larger than what is received at once."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for seed in (1, 2):
        (folder / "raw").write_bytes(random.Random(seed).randbytes(2**21))
        words = ["-f", "raw", "-O", "qcow2", folder / "raw", folder / "made.qcow2"]
        subprocess.run(["qemu-img", "convert", *words], check=True)
        made.append((folder / "made.qcow2").read_bytes())
    return made


@pytest.fixture
def server(images, monkeypatch):
    server = PublisherServer()
    shelves.debian(server, images[0])
    shelves.flatcar(server, images[0])
    shelves.set_mirrors(server, monkeypatch)
    monkeypatch.delenv(VARIABLE, raising=False)
    yield server
    server.close()


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path / "state", uri="test:///default")


@pytest.fixture
def database(settings):
    database = Database(settings.database)
    yield database
    database.close()


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 23, 10, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def notes():
    return []


@pytest.fixture
def follower(settings, database, clock, notes):
    def tell(at, subject, message):
        notes.append((subject, message))

    follower = Follower(settings, database, tell, clock)
    yield follower
    follower.stop()
    follower.join()


def follow(database, wish=WISH):
    with database.write() as connection:
        save_follow(connection, Follow(wish=wish))
    return wish.definition


def known(database, definition="debian-12"):
    with database.read() as connection:
        return find_follow(connection, definition)


def gallery(database, definition="debian-12"):
    with database.read() as connection:
        versions = load_versions(connection, definition)
    return [(str(each.version), each.published_at is not None) for each in versions]


def release_second(server, image):
    root = "/debian/images/cloud/bookworm"
    name = "debian-12-genericcloud-amd64-20261101-2650.qcow2"
    server.put(f"{root}/", listing("daily/", "latest/", "20261001-2600/", "20261101-2650/"))
    server.put(f"{root}/20261101-2650/SHA512SUMS", f"{sha512(image)}  {name}\n")
    return server.put(f"{root}/20261101-2650/{name}", image)


def image_paths(server):
    return [path for path in server.paths() if path.endswith(".qcow2")]


def wait_for(find, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"did not happen: {what}")


def wait_for_part(settings):
    folder = settings.cache_dir / "publishers" / "downloads"
    return wait_for(
        lambda: next((p for p in folder.glob("*.part") if p.stat().st_size), None), "a part"
    )


def hold_second(server, images):
    page = release_second(server, images[1])
    page.hold_after = len(images[1]) // 2
    return page


def test_a_new_version_is_pulled_and_published_once(follower, database, server, images, notes):
    follow(database)
    follower.check("debian-12")
    assert gallery(database) == [(FIRST, True)]
    assert notes[0] == (f"debian-12/{FIRST}", "debian has it, the first: pulling")
    assert notes[1][1].startswith("pulled and published: https://")
    server.asked.clear()
    follower.check("debian-12")
    assert (image_paths(server), len(notes)) == ([], 2)
    release_second(server, images[1])
    follower.check("debian-12")
    follower.check("debian-12")
    assert gallery(database) == [(FIRST, True), (SECOND, True)]
    assert len(image_paths(server)) == 1
    assert notes[2] == (f"debian-12/{SECOND}", f"debian has it, newer than {FIRST}: pulling")


def test_what_is_not_to_be_published_is_not(follower, database, server):
    follow(database, replace(WISH, publish=False))
    follower.check("debian-12")
    assert gallery(database) == [(FIRST, False)]


def test_a_version_that_somebody_deleted_is_not_pulled_again(
    follower, database, settings, server, clock
):
    follow(database)
    follower.check("debian-12")
    delete_image(settings, database, "debian-12", known(database).seen, now=clock())
    follower.check("debian-12")
    assert gallery(database) == []


def test_the_interval_counts_from_the_look(follower, database, server, clock):
    follow(database)
    follower.check("debian-12")
    assert known(database).next_at == clock() + WISH.every
    assert known(database).checked_at == clock()


def test_a_publisher_that_is_down_is_told_once_and_what_is_there_stays(
    follower, database, server, images, notes, clock
):
    follow(database)
    follower.check("debian-12")
    notes.clear()
    server.is_down = True
    for _ in range(3):
        follower.check("debian-12")
    assert len(notes) == 1
    subject, told = notes[0]
    assert subject == "debian-12"
    assert "publisher 'debian' is down; publisher 'debian' has trouble" in told
    assert "what is in the gallery stays; trying again at 2026-11-23 10:01:00 UTC" in told
    assert gallery(database) == [(FIRST, True)]
    assert known(database).failures == 3
    assert known(database).next_at == clock() + timedelta(minutes=4)
    server.is_down = False
    release_second(server, images[1])
    follower.check("debian-12")
    assert gallery(database)[-1] == (SECOND, True)
    assert notes[-1] == ("debian-12", "following debian works again")
    server.is_down = True
    follower.check("debian-12")
    assert "is down" in notes[-1][1]


def test_a_publisher_that_was_never_reached_is_told_once(follower, database, server, notes):
    server.is_down = True
    follow(database)
    follower.check("debian-12")
    follower.check("debian-12")
    assert len(notes) == 1
    assert "publisher 'debian' has trouble" in notes[0][1]
    assert "has trouble" in known(database).trouble


def test_what_is_not_to_be_trusted_is_not_downloaded_again_soon(
    follower, database, server, images, clock
):
    page = release_second(server, images[1])
    page.body = page.body[:-1] + b"!"
    follow(database)
    follower.check("debian-12")
    assert gallery(database) == []
    assert "checksum" in known(database).trouble
    assert known(database).next_at == clock() + WISH.every


def test_a_required_signature_is_required(follower, database, server, notes):
    follow(database, replace(WISH, require_signature=True))
    follower.check("debian-12")
    assert gallery(database) == []
    assert "publisher 'debian' does not sign" in notes[-1][1]
    assert image_paths(server) == []


def test_an_error_that_nobody_thought_of_is_told_and_ends_nothing(
    follower, database, server, notes, settings
):
    settings.cache_dir.write_text("a file where a folder should be")
    follow(database)
    follower.check("debian-12")
    assert "NotADirectoryError" in notes[0][1] or "Not a directory" in notes[0][1]
    assert known(database).failures == 1


def test_its_own_threads_pull_what_is_due_and_notice_a_new_wish(follower, database, server):
    follower.start()
    follow(database)
    wait_for(lambda: gallery(database) == [(FIRST, True)], "a pull")
    follow(database, FLATCAR)
    wait_for(lambda: gallery(database, "flatcar"), "a pull of another one")


def test_a_publisher_that_hangs_does_not_delay_another(follower, database, server, images):
    hold_second(server, images)
    follow(database)
    follower.start()
    assert server.held.wait(60)
    follow(database, FLATCAR)
    wait_for(lambda: gallery(database, "flatcar"), "a pull from another publisher")
    assert gallery(database) == []


def test_stopped_in_mid_download_it_ends_and_the_next_start_goes_on(
    follower, database, server, images, settings, notes, clock
):
    page = hold_second(server, images)
    follow(database)
    follower.start()
    assert server.held.wait(60)
    part = wait_for_part(settings)
    threads = [follower._thread, follower._visits["debian"].thread]
    follower.stop()
    follower.join()
    assert [thread.is_alive() for thread in threads] == [False, False]
    have = part.stat().st_size
    assert 0 < have < len(images[1])
    # To be stopped is no failure: it is due at once.
    assert known(database) == Follow(wish=WISH)
    server.release.set()
    page.hold_after = None
    Follower(settings, database, lambda *_: None, clock).check("debian-12")
    assert gallery(database) == [(SECOND, True)]
    assert server.asked[-1][1]["Range"] == f"bytes={have}-"


def test_unfollowed_in_mid_download_it_lets_go(follower, database, server, images, settings):
    hold_second(server, images)
    follow(database)
    follower.start()
    assert server.held.wait(60)
    thread = follower._visits["debian"].thread
    with database.write() as connection:
        assert remove_follow(connection, "debian-12")
    thread.join(60)
    assert not thread.is_alive()
    assert (gallery(database), known(database)) == ([], None)


_PROGRAM = """
import sys, threading
from pathlib import Path
from labctl.controller.follower import Follower
from labctl.settings import Settings
from labctl.store.database import Database
settings = Settings(state_dir=Path(sys.argv[1]), uri="test:///default")
Follower(settings, Database(settings.database), print).start()
threading.Event().wait()
"""


def test_killed_in_mid_download_the_next_one_goes_on(follower, database, server, images, settings):
    page = hold_second(server, images)
    follow(database)
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(settings.state_dir)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
    )
    try:
        assert server.held.wait(60)
        part = wait_for_part(settings)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    have = part.stat().st_size
    server.release.set()
    page.hold_after = None
    follower.start()
    wait_for(lambda: gallery(database) == [(SECOND, True)], "the rest of the pull")
    assert server.asked[-1][1]["Range"] == f"bytes={have}-"
