"""Files of extensions, from a server on loopback."""

import hashlib
import traceback
from datetime import timedelta

import pytest

from labctl.drivers import resource as module
from labctl.drivers.resource import (
    CredentialRefusedError,
    Resource,
    UnreachableError,
    UnusableError,
    download,
    find_cached,
    probe,
)

from .file_server import FileServer

SCRIPT = b"#!/bin/sh\necho hello\n"
SUM = hashlib.sha256(SCRIPT).hexdigest()
SOON = timedelta(seconds=5)


@pytest.fixture
def server():
    made = FileServer()
    made.files["/x.sh"] = SCRIPT
    yield made
    made.stop()


@pytest.fixture
def other():
    made = FileServer()
    made.files["/x.sh"] = SCRIPT
    yield made
    made.stop()


def make(server, path="/x.sh", **more):
    return Resource(**{"url": server.url(path), "sha256": SUM, "allow_http": True, **more})


def test_what_was_fetched_is_kept_by_its_content_for_us_alone(server, tmp_path):
    cache = tmp_path / "cache"
    assert find_cached(cache, SUM) is None
    assert download(make(server), cache=cache, timeout=SOON) == SCRIPT
    assert find_cached(cache, SUM) == SCRIPT
    assert [path.name for path in cache.iterdir()] == [SUM]
    assert (cache / SUM).stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    (cache / SUM).write_bytes(b"changed")
    assert find_cached(cache, SUM) is None


def test_another_content_than_the_checksum_says_is_refused_and_not_kept(server, tmp_path):
    server.files["/x.sh"] = b"#!/bin/sh\nrm -rf /\n"
    with pytest.raises(UnusableError, match="not what its sha256 says"):
        download(make(server), cache=tmp_path, timeout=SOON)
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_limit_is_not_read_to_its_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 10)
    with pytest.raises(UnusableError, match="has more than"):
        download(make(server), cache=tmp_path, timeout=SOON)


def test_a_token_and_headers_are_sent_and_a_query_is_added(server, tmp_path):
    server.token = "t0ken"
    headers = {"Authorization": "Bearer t0ken", "X-Lab": "1"}
    download(make(server, headers=headers, query="?se=1&sig=s"), cache=tmp_path, timeout=SOON)
    method, path, sent = server.requests[-1]
    assert (method, path, sent["X-Lab"]) == ("GET", "/x.sh?se=1&sig=s", "1")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_told_from_other_faults(server, tmp_path, status):
    server.status = status
    with pytest.raises(CredentialRefusedError, match=str(status)):
        download(make(server), cache=tmp_path, timeout=SOON)
    with pytest.raises(CredentialRefusedError, match=str(status)):
        probe(make(server), timeout=SOON)


@pytest.mark.parametrize(("status", "kind"), [(404, UnusableError), (503, UnreachableError)])
def test_other_answers(server, tmp_path, status, kind):
    server.status = status
    with pytest.raises(kind, match=str(status)):
        download(make(server), cache=tmp_path, timeout=SOON)
    with pytest.raises(kind, match=str(status)):
        probe(make(server), timeout=SOON)


def test_a_probe_fetches_nothing_and_asks_otherwise_where_head_is_unknown(server):
    probe(make(server), timeout=SOON)
    assert [method for method, *_ in server.requests] == ["HEAD"]
    server.knows_head = False
    probe(make(server), timeout=SOON)
    assert server.requests[-1][0] == "GET"
    assert server.requests[-1][2]["Range"] == "bytes=0-0"


def test_no_secret_is_in_the_error_nor_in_its_traceback_when_nobody_answers(
    server, tmp_path, caplog, capfd
):
    server.stop()
    resource = make(server, query="sig=s3cret", headers={"X-Key": "s3cret"})
    with pytest.raises(UnreachableError, match="is not reachable") as caught:
        download(resource, cache=tmp_path, timeout=SOON)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(resource)
    assert "s3cret" not in told + "".join(capfd.readouterr())


def test_the_credential_goes_to_the_first_server_only(server, other, tmp_path):
    server.moved["/moved.sh"] = other.url("/x.sh")
    resource = make(server, "/moved.sh", headers={"X-Key": "s3cret"}, query="sig=s3cret")
    assert download(resource, cache=tmp_path, timeout=SOON) == SCRIPT
    assert "s3cret" in str(server.requests)
    assert "s3cret" not in str(other.requests)


def test_a_redirect_leads_neither_to_plain_http_far_away_nor_in_circles(server, tmp_path):
    server.moved["/away.sh"] = "http://files.example/x.sh"
    with pytest.raises(UnusableError, match="only for loopback"):
        download(make(server, "/away.sh"), cache=tmp_path, timeout=SOON)
    server.moved["/round.sh"] = "/round.sh"
    with pytest.raises(UnusableError, match="more than 5 times"):
        download(make(server, "/round.sh"), cache=tmp_path, timeout=SOON)


def test_no_other_server_reaches_this_host_through_us(server, tmp_path, monkeypatch):
    server.moved["http://10.9.8.7/moved.sh"] = server.url("/x.sh")
    # The proxy stands in for a server elsewhere.
    monkeypatch.setenv("http_proxy", server.url("/"))
    elsewhere = Resource(url="http://10.9.8.7/moved.sh", sha256=SUM, allow_http=True)
    with pytest.raises(UnusableError, match="this host itself"):
        download(elsewhere, cache=tmp_path, timeout=SOON)


def test_a_netrc_of_the_user_does_not_replace_the_token(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    server.token = "t0ken"
    headers = {"Authorization": "Bearer t0ken"}
    assert download(make(server, headers=headers), cache=tmp_path / "c", timeout=SOON) == SCRIPT
