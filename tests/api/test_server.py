"""The server on a real socket with TLS: certificates, bounds for slow clients, how it ends."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import requests
from starlette.responses import StreamingResponse

from labctl.api import guard, protocol, server
from labctl.api.app import App
from labctl.api.call import Answer
from labctl.api.route import Route, Routes
from labctl.api.server import Endpoint, open_socket, parse_endpoint, serving_api
from labctl.controller.clock import now
from labctl.drivers.certificates import ensure_identity
from labctl.errors import HostError, InvalidError
from labctl.model.access import Scope
from labctl.store.audit import load_audit_entries
from tests.api.serving import serving

SOON = 10  # seconds; a test that waits so long has failed
SHORT = 0.2  # a bound that a test waits for


def answer_text(desk, call):
    return Answer(body={"path": call.path, "base": call.base_url})


def take_body(desk, call):
    return Answer(body={"size": len(call.content)})


async def stream_for_ever(desk, call, request):
    async def tell():
        yield b"first\n"
        while not desk.stop.is_set():
            await asyncio.sleep(0.01)

    return StreamingResponse(tell())


FLOODED = threading.Event()  # the client of an endless answer is gone


async def flood(desk, call, request):
    async def tell():
        try:
            while not await request.is_disconnected():
                yield bytes(2**16)
        finally:
            FLOODED.set()

    return StreamingResponse(tell())


ROUTES = Routes(
    (
        Route(method="GET", path="/text", handler=answer_text, scope=None, summary=""),
        Route(method="PUT", path="/body", handler=take_body, scope=None, summary="", limit=1000),
        Route(method="PUT", path="/closed", handler=take_body, summary="", scope=Scope.OPERATE),
        Route(method="GET", path="/stream", stream=stream_for_ever, scope=None, summary=""),
        Route(method="GET", path="/flood", stream=flood, scope=None, summary=""),
    )
)
VERSION = {"api-version": "2024-11-01"}


class Server:
    """A running server."""

    def __init__(self, api, port):
        self.desk = api.desk
        self.port = port
        self.ca = str(api.desk.settings.ca_certificate)
        self.url = f"https://127.0.0.1:{port}"

    def ask(self, method, path, **named):
        return requests.request(
            method, f"{self.url}{path}", params=VERSION, verify=self.ca, timeout=SOON, **named
        )

    @contextlib.contextmanager
    def dial(self, name="localhost"):
        """A connection of which the test sends each byte."""
        context = ssl.create_default_context(cafile=self.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=SOON) as plain,
            context.wrap_socket(plain, server_hostname=name) as line,
        ):
            yield line


@contextlib.contextmanager
def running(api, hosts=()):
    def find_identity():
        return ensure_identity(api.desk.settings, hosts, host_name="lab7", now=now())

    door = open_socket(Endpoint(host="127.0.0.1", port=0))
    with serving_api(api.desk, App(api.desk, ROUTES), door, find_identity):
        yield Server(api, door.getsockname()[1])


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("api")) as api, running(api) as found:
        yield found


def read_all(line):
    """Until the server ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while part := line.recv(65536):
            found += part
    return found


def test_a_client_that_trusts_the_ca_is_answered_under_each_name(tls):
    assert tls.ask("GET", "/text").json() == {"path": "/text", "base": tls.url}
    for name in ("localhost", "lab7", "127.0.0.1", "::1"):
        with tls.dial(name) as line:
            assert line.version() == "TLSv1.3"


def test_a_client_that_does_not_know_the_ca_is_not(tls):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{tls.url}/text", timeout=SOON)
    with pytest.raises(ssl.SSLCertVerificationError), tls.dial("elsewhere.example.org"):
        pass


def test_nobody_is_told_what_serves(tls):
    headers = tls.ask("GET", "/text").headers
    assert "Server" not in headers
    assert "x-labctl-version" not in headers


def test_a_scope_that_is_too_small_is_refused_and_written_down(tls):
    headers = {"Authorization": "Bearer secret-of-read"}
    answer = tls.ask("PUT", "/closed", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "AuthorizationFailed"
    assert "needs 'operate'" in answer.json()["error"]["message"]
    for scope in (Scope.OPERATE, Scope.ADMIN):
        headers = {"Authorization": f"Bearer secret-of-{scope}"}
        assert tls.ask("PUT", "/closed", headers=headers).status_code == 200
    with tls.desk.database.read() as connection:
        entries = [e for e in load_audit_entries(connection) if e.path == "/closed" and e.who]
    assert [(e.who, e.status, e.code) for e in entries] == [
        ("read", 403, "AuthorizationFailed"),
        ("operate", 200, ""),
        ("admin", 200, ""),
    ]


def test_browsers_stay_with_https_under_a_name_of_its_own(tls):
    named = tls.ask("GET", "/text", headers={"Host": "lab7.example.org"})
    assert named.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in tls.ask("GET", "/text").headers


def test_a_port_in_use_and_an_address_of_another_host_are_told():
    with contextlib.closing(open_socket(Endpoint(host="127.0.0.1", port=0))) as door:
        port = door.getsockname()[1]
        with pytest.raises(HostError, match=f"cannot listen on '127.0.0.1:{port}'") as caught:
            open_socket(Endpoint(host="127.0.0.1", port=port))
        assert caught.value.detail == "the port is in use"
    with pytest.raises(HostError, match=r"cannot listen on '192\.0\.2\.1:0'"):
        open_socket(Endpoint(host="192.0.2.1", port=0))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8443", "127.0.0.1", 8443),
        ("localhost:0", "localhost", 0),
        ("[::1]:8443", "::1", 8443),
    ],
)
def test_endpoints_are_read_and_written(text, host, port):
    endpoint = parse_endpoint(text)
    assert endpoint == Endpoint(host=host, port=port)
    assert str(endpoint) == text
    assert endpoint.is_loopback


@pytest.mark.parametrize(
    "text",
    ["", "8443", ":8443", "host", "host:", "host:x", "host:65536", "::1:8443", "a:-1", "a:²"],
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(InvalidError, match="not like HOST:PORT"):
        parse_endpoint(text)


def test_only_some_endpoints_are_for_this_machine_alone():
    assert not Endpoint(host="0.0.0.0", port=1).is_loopback
    assert not Endpoint(host="lab7", port=1).is_loopback
    assert Endpoint(host="::", port=1).is_any
    assert not Endpoint(host="lab7", port=1).is_any


def test_a_silent_client_is_let_go(tls, monkeypatch):
    monkeypatch.setattr(protocol, "HEADER_SECONDS", SHORT)
    with tls.dial() as line:
        assert read_all(line) == b""


def test_headers_that_do_not_end_are_refused(tls, monkeypatch):
    monkeypatch.setattr(protocol, "HEADER_SECONDS", SHORT)
    with tls.dial() as line:
        line.sendall(b"GET /text HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "RequestTimeout"' in answer


@pytest.mark.parametrize("head", [b"GET /%s HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: %s\r\n\r\n"])
def test_too_many_bytes_before_the_body_are_refused(tls, head):
    with tls.dial() as line:
        line.sendall(head % (b"x" * protocol.HEADER_BYTES))
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code": "RequestHeaderFieldsTooLarge"' in answer


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x00\xff\n\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_refused_in_the_shape_of_errors(tls, noise):
    with tls.dial() as line:
        line.sendall(noise)
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "BadRequest"' in answer


def test_an_old_client_without_a_host_is_answered_and_one_with_two_is_not(tls):
    with tls.dial() as line:
        line.sendall(b"GET /text?api-version=2024-11-01 HTTP/1.0\r\n\r\n")
        assert tls.url.encode() in read_all(line)
    with tls.dial() as line:
        line.sendall(b"GET /text HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
        assert b'"code":"InvalidHostHeader"' in read_all(line)


def test_a_body_that_does_not_end_is_refused(tls, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", SHORT)
    with tls.dial() as line:
        line.sendall(
            b"PUT /body?api-version=2024-11-01 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9\r\n\r\nhalf"
        )
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"RequestTimeout"' in answer


def test_a_client_that_goes_on_sending_what_was_refused_is_let_go(tls, monkeypatch):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", SHORT)
    with tls.dial() as line:
        line.sendall(
            b"PUT /closed?api-version=2024-11-01 HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_client_that_goes_silent_after_an_answer_is_let_go(tls, monkeypatch):
    monkeypatch.setattr(protocol, "IDLE_SECONDS", SHORT)
    with tls.dial() as line:
        line.sendall(b"GET /text?api-version=2024-11-01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        line.sendall(b"\r\n")  # ends uvicorn's own timer
        read_all(line)


def test_a_client_that_takes_no_answer_is_let_go(tls, monkeypatch):
    monkeypatch.setattr(protocol, "IDLE_SECONDS", SHORT)
    FLOODED.clear()
    with tls.dial() as line:
        line.sendall(b"GET /flood?api-version=2024-11-01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert FLOODED.wait(SOON)  # without one byte read


def test_more_at_once_than_there_is_room_for_is_told_to_come_back(api, monkeypatch):
    monkeypatch.setattr(server, "_AT_ONCE", 3)
    with running(api) as tls, tls.dial(), tls.dial():
        answer = tls.ask("GET", "/text")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "ServerBusy"
        assert answer.headers["Retry-After"] == "1"


def test_one_address_cannot_have_all_connections(api, monkeypatch):
    monkeypatch.setattr(protocol, "OF_ONE_ADDRESS", 2)
    with running(api) as tls, tls.dial(), tls.dial(), tls.dial() as third:
        answer = read_all(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"ServerBusy"' in answer


def test_an_open_stream_does_not_keep_the_server_from_ending(api):
    before = set(threading.enumerate())
    with running(api) as tls:
        answer = tls.ask("GET", "/stream", stream=True)
        lines = answer.iter_lines()
        assert next(lines) == b"first"
    assert list(lines) == []
    assert not [t for t in set(threading.enumerate()) - before if t.name == "api"]


def test_a_renewed_certificate_is_shown_without_a_restart(api, monkeypatch):
    monkeypatch.setattr(server, "_RENEWAL_TICKS", 1)
    hosts = []
    with running(api, hosts) as tls:
        with pytest.raises(ssl.SSLCertVerificationError), tls.dial("new.example.org"):
            pass
        hosts.append("new.example.org")

        def is_shown():
            try:
                with tls.dial("new.example.org"):
                    return True
            except ssl.SSLCertVerificationError:
                return False

        assert wait_for(is_shown)
        assert tls.ask("GET", "/text").status_code == 200


def test_a_certificate_that_cannot_be_read_leaves_the_old_one(api, monkeypatch):
    monkeypatch.setattr(server, "_RENEWAL_TICKS", 1)
    tried = threading.Event()
    with running(api) as tls:
        look = server._look_at

        def fail(identity):
            tried.set()
            look(identity)
            raise OSError("gone")

        monkeypatch.setattr(server, "_look_at", fail)
        assert tried.wait(SOON)
        assert tls.ask("GET", "/text").status_code == 200


def wait_for(is_true):
    """Ask until it is; False: it was not in time."""
    ended = threading.Event()
    for _ in range(int(SOON / 0.05)):
        if is_true():
            return True
        ended.wait(0.05)
    return False
