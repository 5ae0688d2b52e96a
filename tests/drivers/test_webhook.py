"""Posting to a real server on loopback."""

import hashlib
import hmac
import socket
import threading
from datetime import timedelta

import pytest

from labctl.drivers.webhook import ANSWER_LIMIT, SIGNATURE, Answer, WebhookError, post, read_secret
from labctl.model.webhook import Webhook
from tests.drivers.webhook_server import WebhookServer

SOON = timedelta(seconds=10)


@pytest.fixture
def server():
    made = WebhookServer()
    yield made
    made.stop()


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"between us\n")
    path.chmod(0o600)
    return path


def test_what_is_posted_is_signed_with_the_secret(server, secret):
    webhook = Webhook(url=server.url, allow_http=True, secret_file=str(secret))
    assert post(webhook, b'{"a": 1}', timeout=SOON) == Answer(status=200, body=b"{}")
    _, headers, body = server.taken[0]
    signature = hmac.new(b"between us", b'{"a": 1}', hashlib.sha256).hexdigest()
    assert (headers[SIGNATURE], body) == (f"sha256={signature}", b'{"a": 1}')
    assert headers["Content-Type"] == "application/json"


def test_a_redirect_is_an_answer_and_is_not_followed(server):
    server.answers = [(307, b"", {"Location": server.url + "/elsewhere"})]
    webhook = Webhook(url=server.url, allow_http=True)
    assert post(webhook, b"{}", timeout=SOON).status == 307
    assert len(server.taken) == 1
    assert SIGNATURE not in server.taken[0][1]


def test_no_more_of_an_answer_is_read_than_makes_sense(server):
    server.answers = [(200, b"x" * (3 * ANSWER_LIMIT), {})]
    webhook = Webhook(url=server.url, allow_http=True)
    assert len(post(webhook, b"{}", timeout=SOON).body) == ANSWER_LIMIT


def test_a_server_that_is_down_is_named_without_its_query(server):
    server.stop()
    webhook = Webhook(url=server.url + "?token=hush", allow_http=True)
    with pytest.raises(WebhookError, match=f"127.0.0.1:{server.port} is not reachable") as caught:
        post(webhook, b"{}", timeout=SOON)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64 + ".example"])
def test_a_name_that_is_none_of_a_host_is_told_as_others(host):
    webhook = Webhook.model_construct(url=f"https://{host}/?hush", secret_file=None)
    with pytest.raises(WebhookError, match="is not reachable") as caught:
        post(webhook, b"{}", timeout=SOON)
    assert "hush" not in str(caught.value)


@pytest.fixture
def dripping():
    """Makes a server that begins like this, and goes on byte by byte; the value is its URL."""
    is_over, opened = threading.Event(), []

    def begin(head):
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def drip():
            taken, _ = listener.accept()
            with taken:
                try:
                    taken.sendall(head)
                    for _ in range(200):  # an end, so that a test fails and does not hang
                        if is_over.wait(0.05):
                            break
                        taken.sendall(b"x")
                except OSError:
                    return  # it has hung up

        threading.Thread(target=drip, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield begin
    is_over.set()
    for each in opened:
        each.close()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_head_that_never_ends_is_given_up_at_the_deadline(dripping, head):
    webhook = Webhook(url=dripping(head), allow_http=True)
    with pytest.raises(WebhookError, match="did not answer in time"):
        post(webhook, b"{}", timeout=timedelta(seconds=0.4))


def test_a_body_that_never_ends_does_not_take_the_status_away(dripping):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    webhook = Webhook(url=dripping(head), allow_http=True)
    assert post(webhook, b"{}", timeout=timedelta(seconds=0.4)).status == 200


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        (b"hush", 0o640, r"may be used by others \(mode 0640\)"),
        (b"\n", 0o600, "must hold 1 to 4096 bytes"),
        (b"h" * 5000, 0o600, "must hold 1 to 4096 bytes"),
    ],
)
def test_a_secret_that_is_open_or_none_is_refused_and_not_repeated(tmp_path, content, mode, fault):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(WebhookError, match=fault) as caught:
        read_secret(path)
    assert "hush" not in str(caught.value)


def test_a_secret_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WebhookError, match="No such file"):
        read_secret(tmp_path / "none")
    with pytest.raises(WebhookError, match="is no regular file"):
        read_secret(tmp_path)
