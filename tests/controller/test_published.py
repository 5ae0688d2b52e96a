import subprocess
from datetime import UTC, datetime

import pytest

from labctl.controller import published
from labctl.drivers.publishers.download import part_path
from labctl.errors import NotFoundError
from labctl.model.image import VersionNumber
from labctl.model.publisher import Architecture, PublishedVersion
from labctl.settings import Settings
from labctl.store.database import Database
from tests.drivers.publishers import shelves
from tests.drivers.publishers.server import PublisherServer

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def _version(major, minor, patch, build):
    return PublishedVersion(
        version=VersionNumber(major, minor, patch),
        build=build,
        url=f"https://x/{build}",
        architecture=Architecture.X86_64,
        checksum=None,
    )


VERSIONS = (_version(9, 8, 1, "9.8-1"), _version(9, 10, 0, "9.10-0"))


def test_the_newest_is_the_highest_as_a_number():
    assert published.choose(VERSIONS, "latest", "rocky 9") == VERSIONS[1]


@pytest.mark.parametrize("wanted", ["9.8.1", "9.8-1"])
def test_a_version_is_chosen_by_number_or_build(wanted):
    assert published.choose(VERSIONS, wanted, "rocky 9") == VERSIONS[0]


def test_what_is_not_there_is_told_with_the_newest():
    with pytest.raises(NotFoundError, match=r"rocky 9 has no version '9\.9\.9'") as caught:
        published.choose(VERSIONS, "9.9.9", "rocky 9")
    assert caught.value.detail == "the newest: 9.10.0, 9.8.1"
    with pytest.raises(NotFoundError, match="has no versions"):
        published.choose((), "latest", "rocky 9")


@pytest.mark.host
def test_the_rest_of_a_pull_that_died_after_its_import_is_tidied_up(tmp_path, monkeypatch):
    image = tmp_path / "tiny.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "4M"], check=True)
    settings = Settings(state_dir=tmp_path / "state", uri="test:///default")
    server = PublisherServer()
    shelves.debian(server, image.read_bytes())
    shelves.set_mirrors(server, monkeypatch)
    database = Database(settings.database)
    try:
        first = _pull(settings, database)
        rest = part_path(settings.cache_dir / "publishers" / "downloads", first.published.url)
        rest.write_bytes(b"rest")
        second = _pull(settings, database)
        assert (first.imported.is_new, second.imported.is_new) == (True, False)
        assert second.imported.image == first.imported.image
        assert not rest.exists()
    finally:
        database.close()
        server.close()


def _pull(settings, database):
    with published.opened(settings, "debian", now=NOW) as source:
        sku, versions = published.list_versions(source, "genericcloud", "12", Architecture.X86_64)
        return published.pull(
            source,
            database,
            published.choose(versions, "latest", "debian"),
            definition=sku.definition,
            description=sku.title,
            publish=False,
            require_signature=False,
            now=NOW,
            say=lambda _: None,
            show=lambda *_: None,
        )
