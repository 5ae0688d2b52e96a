"""From the server of a publisher to running instances, with no command in between."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.follows import find_follow, save_follow
from tests.drivers.publishers.server import PublisherServer, listing, sha512
from tests.e2e.harness import HEALTH, URI, Lab, share_build_cache, state_directory, wait_for
from tests.e2e.serving import AUTOMATIC, LONG, history, read_log, serving, wait_for_end

SKU = ("debian", "genericcloud", "12")
NAME = "debian-12-genericcloud"
FIRST, SECOND = "12.20261001.2600", "12.20261101.2650"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of its own: the daemon works on every scale set that it finds."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        yield made
        made.remove("app")


@pytest.fixture
def server() -> Iterator[PublisherServer]:
    """Debian's server, as far as it is needed."""
    server = PublisherServer()
    server.put("/debian/images/cloud/", listing("bookworm/"))
    yield server
    server.close()


def release(server: PublisherServer, image: bytes, *builds: str) -> None:
    """Put the last of `builds` on the server."""
    root, build = "/debian/images/cloud/bookworm", builds[-1]
    file = f"debian-12-genericcloud-amd64-{build}.qcow2"
    server.put(f"{root}/{build}/{file}", image)
    server.put(f"{root}/{build}/SHA512SUMS", f"{sha512(image)}  {file}\n")
    server.put(f"{root}/", listing("daily/", "latest/", *(f"{each}/" for each in builds)))


def look_often(lab: Lab) -> None:
    """Ask every two seconds; the command refuses less than a minute, which no test has."""
    settings = Settings(state_dir=lab.state_dir, uri=URI)
    with closing(Database(settings.database)) as database, database.write() as connection:
        follow = find_follow(connection, NAME)
        assert follow is not None
        wish = replace(follow.wish, every=timedelta(seconds=2))
        save_follow(connection, replace(follow, wish=wish))


def find_followed(lab: Lab):
    (row,) = lab.json("image", "followed")
    return row


def test_a_set_takes_what_its_publisher_brings_and_outlives_the_publisher(lab, server, tiny_files):
    lab.env["LABCTL_MIRROR_DEBIAN"] = f"{server.url}/debian"
    release(server, tiny_files["1.0.0"].read_bytes(), "20261001-2600")
    lab.run("image", "follow", *SKU)
    look_often(lab)
    with serving(lab):
        wait_for(lambda: find_followed(lab)["newest"] == FIRST, seconds=LONG, what="the first")
        lab.apply(
            "app",
            image={"definition": NAME, "version": "latest"},
            health=HEALTH,
            upgradePolicy={"healthTimeout": "15s", **AUTOMATIC},
        )
        assert lab.versions("app") == [FIRST]

        release(server, tiny_files["1.1.0"].read_bytes(), "20261001-2600", "20261101-2650")
        ended = wait_for_end(lab, "app")
        assert ended["runningStatus"]["code"] == "Completed"
        assert ended["startedBy"] == "Platform"
        assert lab.versions("app") == [SECOND]
        assert "IMAGE_VERSION=1.1.0" in lab.ask("app_0", "cat /etc/labctl-image")
        (kept,) = [row for row in lab.json("image", "list") if row["version"] == SECOND]
        assert f"{SECOND.split('.')[1]}-2650.qcow2 sha512:" in str(kept)

        server.close()
        trouble = wait_for(lambda: find_followed(lab)["trouble"], seconds=LONG, what="trouble")
        assert "publisher 'debian' is down" in trouble
        assert "what is in the gallery stays; trying again" in read_log(lab)
        assert find_followed(lab)["newest"] == SECOND
        told = lab.run("image", "versions", *SKU, "--refresh")
        assert SECOND in told.stdout
        assert "the index of" in told.stderr
        assert lab.instances("app")["app_0"]["health"] == "Healthy"
        watched = lab.json("image", "watch", "app")[0]
        assert watched["latest"] == f"{NAME}/{SECOND}"
        assert "up to date" in watched["why"]
        assert len(history(lab, "app")) == 1
