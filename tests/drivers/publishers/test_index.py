from datetime import timedelta

import pytest

from labctl.drivers.publishers import index as index_module
from labctl.drivers.publishers.addresses import Mirror
from labctl.drivers.publishers.failure import MissingError, PublisherError, UnreachableError
from labctl.drivers.publishers.index import FRESH_FOR, IndexReader
from labctl.drivers.publishers.transport import Transport
from labctl.model.publisher import Publisher
from tests.drivers.publishers.conftest import NOW
from tests.drivers.publishers.server import A_DATE, Page

DEBIAN = Publisher(name="debian", title="", hosts=("cloud.debian.org",), signs="")
URL = "https://cloud.debian.org/list.json"
LATER = NOW + FRESH_FOR


@pytest.fixture
def read(server, tmp_path):
    transport = Transport(DEBIAN, Mirror(url=server.url))

    def open_index(now=NOW, *, refresh=False):
        return IndexReader(transport, tmp_path / "cache", now=now, refresh=refresh)

    yield open_index
    transport.close()


def test_an_index_is_asked_for_once_in_a_run_and_not_again_while_it_is_fresh(server, read):
    server.put("/list.json", "[1]")
    index = read()
    assert index.json(URL) == index.json(URL) == [1]
    assert read(NOW + FRESH_FOR - timedelta(seconds=1)).json(URL) == [1]
    assert len(server.asked) == 1


@pytest.mark.parametrize("more", [{}, {"etag": "", "date": A_DATE}], ids=["etag", "date"])
def test_an_unchanged_index_is_not_sent_again(server, read, more):
    page = server.put("/list.json", "[1]", **more)
    assert read().json(URL) == [1]
    page.body = b"a server that sends this has not understood the condition"
    assert read(LATER).json(URL) == [1]
    condition = "If-Modified-Since" if more else "If-None-Match"
    assert condition in server.asked[1][1]
    # It was told to be the present state, so it is fresh again.
    assert read(LATER + timedelta(minutes=5)).json(URL) == [1]
    assert len(server.asked) == 2


def test_refresh_asks_at_once(server, read):
    server.put("/list.json", "[1]")
    read().json(URL)
    server.put("/list.json", "[2]")
    assert read().json(URL) == [1]
    assert read(refresh=True).json(URL) == [2]


def test_a_publisher_that_is_down_leaves_what_is_cached_and_says_from_when(server, read):
    server.put("/list.json", "[1]")
    read().json(URL)
    server.is_down = True
    index = read(LATER)
    assert index.json(URL) == [1]
    (stale,) = index.stale
    assert (stale.url, stale.fetched_at) == (URL, NOW)
    assert "publisher 'debian' has trouble" in stale.why
    server.close()
    assert read(LATER).json(URL) == [1]


def test_a_publisher_that_is_down_and_nothing_cached_is_an_error(server, read):
    server.is_down = True
    with pytest.raises(UnreachableError, match="publisher 'debian' has trouble") as caught:
        read().json(URL)
    assert "HTTP 503" in caught.value.detail
    assert "LABCTL_MIRROR_DEBIAN" in caught.value.hint
    server.close()
    with pytest.raises(UnreachableError, match="publisher 'debian' does not answer") as caught:
        read().json(URL)
    assert "refused" in caught.value.detail


def test_a_missing_file_is_not_a_publisher_that_is_down(server, read):
    server.put("/list.json", "[1]")
    read().json(URL)
    del server.pages["/list.json"]
    with pytest.raises(MissingError, match=r"does not have 'list\.json'"):
        read(LATER).json(URL)
    assert read().find_text("https://cloud.debian.org/other") is None


@pytest.mark.parametrize(
    ("body", "why"), [(b"<html>", "it is not JSON"), (b"\xff\xfe", "it is not UTF-8 text")]
)
def test_a_malformed_index_names_publisher_and_address(server, read, body, why):
    server.put("/list.json", body)
    with pytest.raises(PublisherError) as caught:
        read().json(URL)
    assert caught.value.brief == "the index of publisher 'debian' cannot be understood"
    assert caught.value.detail.startswith(f"{URL}: {why}")


def test_an_index_that_does_not_end_is_not_read_to_its_end(server, read, monkeypatch):
    monkeypatch.setattr(index_module, "LIMIT", 2**20)
    server.put("/list.json", b"[" + b" " * 2**21)
    with pytest.raises(PublisherError) as caught:
        read().json(URL)
    assert "larger than 1 MiB" in caught.value.detail


def test_a_damaged_cache_is_not_used(server, read, tmp_path):
    server.put("/list.json", "[1]")
    read().json(URL)
    for path in (tmp_path / "cache").glob("*.body"):
        path.write_bytes(b"[666]")
    assert read().json(URL) == [1]
    for path in (tmp_path / "cache").glob("*.json"):
        path.write_bytes(b"{")
    assert read().json(URL) == [1]
    assert len(server.asked) == 3


def test_names_in_the_cache_do_not_come_from_addresses(server, read, tmp_path):
    server.put("/a/../../../x", "[1]")
    with pytest.raises(PublisherError):
        read().json("https://cloud.debian.org/../../../x")
    server.put("/list.json", "[1]")
    read().json(URL)
    assert all(path.parent == tmp_path / "cache" for path in tmp_path.rglob("*.*"))


def test_a_redirection_to_another_place_than_https_is_not_followed(server, read):
    for target in ("http://127.0.0.1:9/x", "file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.pages["/list.json"] = Page(body=b"", location=target)
        with pytest.raises(PublisherError, match="redirects to") as caught:
            read().json(URL)
        assert caught.value.detail == "only https is followed"


def test_a_redirection_within_the_mirror_is_followed_but_not_for_ever(server, read):
    server.pages["/list.json"] = Page(body=b"", location="/real.json")
    server.put("/real.json", "[1]")
    assert read().json(URL) == [1]
    server.pages["/real.json"] = Page(body=b"", location="/list.json")
    with pytest.raises(PublisherError, match="again and again"):
        read(refresh=True).json(URL)


def test_a_server_that_does_not_get_through_is_given_up(server, read, monkeypatch):
    monkeypatch.setattr(index_module, "DEADLINE", timedelta(seconds=-1))
    server.put("/list.json", "[1]")
    with pytest.raises(UnreachableError, match="does not answer"):
        read().json(URL)


def test_a_clock_that_was_set_back_does_not_make_an_index_fresh(server, read):
    server.put("/list.json", "[1]")
    read().json(URL)
    read(NOW - timedelta(days=900)).json(URL)
    assert len(server.asked) == 2
