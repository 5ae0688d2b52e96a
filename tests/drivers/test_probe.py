import contextlib
import json
import socket
import socketserver
import threading
from datetime import timedelta

import pytest

from labctl.drivers.probe import AgentTarget, HttpTarget, ProbeResult, TcpTarget, check
from labctl.model.instance import HealthState

SECOND = timedelta(seconds=1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


class Server:
    """Answers each connection as the test says: with bytes, or by a function of the socket."""

    def __init__(self):
        self.answer = OK
        self.requests = []
        self.is_closing = threading.Event()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                if callable(outer.answer):
                    outer.answer(self.request)
                    return
                outer.requests.append(self.request.recv(65536))
                self.request.sendall(outer.answer)

        socketserver.ThreadingTCPServer.daemon_threads = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self):
        self.is_closing.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def http(port, path="/health", scheme="http"):
    return HttpTarget(scheme=scheme, host="127.0.0.1", port=port, path=path)


def agent(port):
    return AgentTarget(host="127.0.0.1", port=port, token="s3cret")


def healthy(detail):
    return ProbeResult(state=HealthState.HEALTHY, detail=detail)


def unhealthy(detail):
    return ProbeResult(state=HealthState.UNHEALTHY, detail=detail)


def unknown(detail):
    return ProbeResult(state=HealthState.UNKNOWN, detail=detail, is_silence=True)


def answer_of(document, status="200 OK"):
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("status", [200, 201, 302, 404, 503])
def test_exactly_200_is_healthy(server, status):
    server.answer = OK.replace(b"200", str(status).encode()).replace(
        b"\r\n\r\n", b"\r\nLocation: /elsewhere\r\n\r\n"
    )
    expected = healthy if status == 200 else unhealthy
    assert check(http(server.port), timeout=SECOND) == expected(f"HTTP {status} from /health")
    assert len(server.requests) == 1  # a redirection is not followed


def test_nobody_listening_is_unhealthy_for_an_application_and_unknown_for_an_agent(closed_port):
    assert check(http(closed_port), timeout=SECOND) == unhealthy("/health: Connection refused")
    assert check(TcpTarget(host="127.0.0.1", port=closed_port), timeout=SECOND) == unhealthy(
        f"port {closed_port}: Connection refused"
    )
    assert check(agent(closed_port), timeout=SECOND) == unknown(
        "the health agent does not answer: Connection refused"
    )


def test_the_agents_verdict_is_passed_on(server):
    server.answer = answer_of({"state": "Unhealthy", "detail": "HTTP 503 from /", "since": 1})
    assert check(agent(server.port), timeout=SECOND) == unhealthy("HTTP 503 from /")
    assert b"\r\nAuthorization: Bearer s3cret\r\n" in server.requests[0]


@pytest.mark.parametrize(
    "document", [{"state": "Great", "detail": ""}, {"detail": ""}, [], "x", None], ids=str
)
def test_an_agent_that_talks_nonsense_is_unknown(server, document):
    server.answer = answer_of(document)
    assert check(agent(server.port), timeout=SECOND) == unknown(
        "no health agent answers, but something else (HTTP 200)"
    )


def test_a_wrong_token_is_told(server):
    server.answer = answer_of({"error": "no"}, "401 Unauthorized")
    assert "does not accept the token" in check(agent(server.port), timeout=SECOND).detail


@pytest.mark.parametrize("drip", [b"", b"H", OK[:-3], b"HTTP/1.1 200 OK\r\nX: "], ids=repr)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_drips_is_given_up_at_the_deadline(server, drip, scheme):
    def answer(request):
        request.sendall(drip)
        while not server.is_closing.wait(0.05):  # so it does not end before the result is there
            if drip:
                with contextlib.suppress(OSError):
                    request.sendall(b"x")

    server.answer = answer
    result = check(http(server.port, scheme=scheme), timeout=timedelta(seconds=0.4))
    # A byte that is no TLS record ends an https request early; three drops are the whole body.
    if scheme == "http" and drip != OK[:-3]:
        assert result.state is HealthState.UNHEALTHY
    if scheme == "http" and drip in {b"", b"HTTP/1.1 200 OK\r\nX: "}:
        assert result.detail == "/health: timed out"


def test_an_endless_body_does_not_fill_the_memory(server):
    sent = []

    def answer(request):
        request.recv(65536)
        request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while sum(sent) < 50_000_000:
                request.sendall(b"x" * 65536)
                sent.append(65536)
        except OSError:
            return

    server.answer = answer
    assert check(http(server.port), timeout=SECOND).state is HealthState.HEALTHY
    assert sum(sent) < 20_000_000


@pytest.mark.parametrize("garbage", [b"\x00\xff", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b""])
def test_garbage_is_unhealthy(server, garbage):
    server.answer = garbage
    assert check(http(server.port), timeout=SECOND).state is HealthState.UNHEALTHY


def test_tcp_needs_somebody_who_stays(server):
    server.answer = lambda request: request.recv(1)
    target = TcpTarget(host="127.0.0.1", port=server.port)
    assert check(target, timeout=SECOND) == healthy(f"port {server.port} accepts")
    server.answer = lambda request: None  # what a forwarder does when nobody listens behind it
    assert check(target, timeout=SECOND).state is HealthState.UNHEALTHY
    server.answer = lambda request: request.sendall(b"220 hello\r\n")
    assert check(target, timeout=SECOND).state is HealthState.HEALTHY


def test_a_proxy_of_the_environment_is_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert check(http(server.port), timeout=SECOND).state is HealthState.HEALTHY


def agent_says(**document):
    body = json.dumps({"state": "Healthy", "detail": "d", **document}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_custom_metrics_come_without_what_a_terminal_would_act_on(server):
    server.answer = agent_says(customMetrics='{"a":\n "\x1b[31mred\u202e"}')
    result = check(agent(server.port), timeout=SECOND)
    assert result == ProbeResult(
        state=HealthState.HEALTHY, detail="d", custom_metrics='{"a": "[31mred"}'
    )


def test_custom_metrics_that_are_too_large_are_dropped(server):
    server.answer = agent_says(customMetrics="x" * 5000)
    assert check(agent(server.port), timeout=SECOND) == healthy("d")


def test_unknown_by_the_agent_is_not_silence(server, closed_port):
    server.answer = agent_says(state="Unknown")
    assert check(agent(server.port), timeout=SECOND) == ProbeResult(
        state=HealthState.UNKNOWN, detail="d"
    )
    assert check(agent(closed_port), timeout=SECOND).is_silence


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null"])
def test_an_agent_that_answers_something_else_is_unknown(server, body):
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    result = check(agent(server.port), timeout=SECOND)
    assert result == unknown("no health agent answers, but something else (HTTP 200)")


def test_the_token_is_in_no_representation():
    assert "s3cret" not in repr(agent(1))
