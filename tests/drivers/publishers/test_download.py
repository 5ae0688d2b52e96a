import hashlib
import random

import pytest

from labctl.drivers.publishers.addresses import Mirror
from labctl.drivers.publishers.download import downloading, ensure_forgotten, part_path
from labctl.drivers.publishers.failure import PublisherError, UnreachableError, UntrustedError
from labctl.drivers.publishers.transport import Transport
from labctl.errors import InvalidError, RefusedError
from labctl.model.publisher import Algorithm, Checksum, Publisher
from tests.drivers.publishers.server import A_DATE

FEDORA = Publisher(name="fedora", title="", hosts=("download.test",), signs="")
URL = "https://download.test/x.qcow2"
IMAGE = random.Random(7).randbytes(3_000_000)
SIZE = len(IMAGE)
MIDDLE = 1_000_000


def _checksum(content=IMAGE, algorithm=Algorithm.SHA256):
    return Checksum(algorithm=algorithm, digest=hashlib.new(algorithm.value, content).hexdigest())


class Fetch:
    def __init__(self, server, folder):
        self.transport = Transport(FEDORA, Mirror(url=server.url))
        self.folder = folder
        self.said = []
        self.shown = []

    def __call__(self, *, checksum=None, size=SIZE):
        with self.open(checksum=checksum, size=size) as path:
            return path.read_bytes()

    def open(self, *, checksum=None, size=SIZE):
        return downloading(
            self.transport,
            URL,
            self.folder,
            checksum=checksum or _checksum(),
            size=size,
            say=self.said.append,
            show=lambda done, total: self.shown.append((done, total)),
        )

    @property
    def left(self):
        return sorted(path.suffix for path in self.folder.iterdir())


@pytest.fixture
def fetch(server, tmp_path):
    fetch = Fetch(server, tmp_path / "downloads")
    yield fetch
    fetch.transport.close()


def _ranges(server):
    return [headers.get("Range") for _, headers in server.asked]


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_file_is_fetched_checked_and_not_left_behind(server, fetch, algorithm):
    server.put("/x.qcow2", IMAGE)
    assert fetch(checksum=_checksum(algorithm=algorithm)) == IMAGE
    assert fetch.left == []
    assert fetch.shown[-1] == (len(IMAGE), len(IMAGE))
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("more", [{}, {"etag": "", "date": A_DATE}], ids=["etag", "date"])
def test_after_a_cut_only_the_rest_is_asked_for(server, fetch, more):
    server.put("/x.qcow2", IMAGE, cut_after=[MIDDLE], **more)
    assert fetch() == IMAGE
    assert len(server.asked) == 2
    begin = int(_ranges(server)[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= MIDDLE
    assert any("the connection was cut" in line for line in fetch.said)


def test_a_connection_that_is_cut_again_and_again_gets_there_while_it_brings_something(
    server, fetch
):
    server.put("/x.qcow2", IMAGE, cut_after=[400_000] * 7)
    assert fetch() == IMAGE
    assert len(server.asked) == 8


def test_a_connection_that_brings_nothing_is_given_up_and_the_rest_is_kept(server, fetch):
    page = server.put("/x.qcow2", IMAGE, cut_after=[MIDDLE, *[0] * 5])
    with pytest.raises(UnreachableError, match="in the middle of a download") as caught:
        fetch()
    assert "it goes on where this ended" in caught.value.hint
    assert fetch.left == [".json", ".part"]
    page.cut_after = []
    assert fetch() == IMAGE
    assert _ranges(server)[-1] is not None


def test_a_server_that_goes_down_in_the_middle_leaves_what_is_there(server, fetch):
    page = server.put("/x.qcow2", IMAGE, cut_after=[MIDDLE])
    ask = server.answer

    def answer(handler):
        is_first = not server.asked
        ask(handler)
        if is_first:  # before the connection is closed, so before the client asks again
            server.is_down = True

    server.answer = answer
    with pytest.raises(UnreachableError) as caught:
        fetch()
    assert "HTTP 503" in caught.value.detail
    server.answer, server.is_down = ask, False
    assert fetch() == IMAGE
    assert page.cut_after == []


def test_a_server_that_ignores_the_range_sends_all_and_that_is_used(server, fetch):
    server.put("/x.qcow2", IMAGE, cut_after=[MIDDLE], ignores_range=True)
    assert fetch() == IMAGE
    assert "begins anew: the server sends the whole file" in fetch.said


def test_a_file_that_changed_in_the_meantime_is_fetched_from_its_begin(server, fetch):
    old = IMAGE[::-1]
    server.put("/x.qcow2", old, cut_after=[MIDDLE, *[0] * 5])
    with pytest.raises(UnreachableError):
        fetch()
    server.put("/x.qcow2", IMAGE)
    assert fetch() == IMAGE
    assert "begins anew: the server sends the whole file" in fetch.said


def test_without_a_word_on_whether_it_is_the_same_file_it_begins_anew(server, fetch):
    server.put("/x.qcow2", IMAGE, etag='W/"weak"', cut_after=[MIDDLE, *[0] * 5])
    with pytest.raises(UnreachableError):
        fetch()
    server.put("/x.qcow2", IMAGE, etag="")
    server.asked.clear()
    assert fetch() == IMAGE
    assert _ranges(server) == [None]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, fetch):
    page = server.put("/x.qcow2", IMAGE + b"more", cut_after=[len(IMAGE) + 2, *[0] * 5])
    with pytest.raises(UnreachableError):
        fetch(size=None, checksum=_checksum())
    page.body, page.cut_after = IMAGE, []
    assert fetch(size=None) == IMAGE


def test_another_part_than_was_asked_for_is_not_put_in_its_place(server, fetch):
    page = server.put("/x.qcow2", IMAGE, cut_after=[MIDDLE], wrong_range=True)
    with pytest.raises(PublisherError, match="another part than was asked for"):
        fetch()
    page.wrong_range = False
    assert fetch() == IMAGE


def test_a_wrong_checksum_leaves_nothing(server, fetch):
    server.put("/x.qcow2", IMAGE[:-1] + b"!")
    with pytest.raises(UntrustedError, match="does not have the checksum") as caught:
        fetch()
    assert _checksum().digest in caught.value.detail
    assert fetch.left == []


def test_a_wrong_size_is_refused_before_the_download(server, fetch):
    server.put("/x.qcow2", IMAGE)
    with pytest.raises(UntrustedError, match="does not have the size"):
        fetch(size=len(IMAGE) - 1)
    assert fetch.shown == []


def test_a_body_without_end_is_cut_off(server, fetch):
    server.put("/x.qcow2", IMAGE, headers={"Transfer-Encoding": "identity"})
    page = server.pages["/x.qcow2"]
    server._send = lambda handler, _: _send_without_length(handler, page.body)
    with pytest.raises(UntrustedError, match="longer than the publisher tells"):
        fetch(size=MIDDLE)
    assert fetch.left == []


def _send_without_length(handler, body):
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)


def test_what_is_whole_already_is_not_asked_for(server, fetch):
    server.put("/x.qcow2", IMAGE)
    with pytest.raises(KeyboardInterrupt), fetch.open():
        raise KeyboardInterrupt
    assert fetch.left == [".json", ".part"]
    server.close()
    assert fetch() == IMAGE


def test_a_file_that_is_of_no_use_is_not_kept(server, fetch):
    server.put("/x.qcow2", IMAGE)
    with pytest.raises(InvalidError), fetch.open():
        raise InvalidError("not an image")
    assert fetch.left == []


def test_two_processes_do_not_write_one_file(server, fetch):
    server.put("/x.qcow2", IMAGE)
    with fetch.open(), pytest.raises(RefusedError, match="by another process"):
        fetch()


def test_what_is_left_can_be_forgotten_but_not_under_a_living_download(server, fetch):
    server.put("/x.qcow2", IMAGE)
    assert not ensure_forgotten(fetch.folder, URL)
    with fetch.open() as path:
        assert not ensure_forgotten(fetch.folder, URL)
        assert path == part_path(fetch.folder, URL)
        assert path.exists()
    path.write_bytes(b"rest")
    path.with_suffix(".unpacked").write_bytes(b"rest")
    assert ensure_forgotten(fetch.folder, URL)
    assert fetch.left == []


def test_the_download_is_kept_when_its_signature_cannot_be_asked_for_now(server, fetch):
    server.put("/x.qcow2", IMAGE)
    with pytest.raises(UnreachableError), fetch.open():
        raise UnreachableError("down")
    assert fetch.left == [".json", ".part"]
