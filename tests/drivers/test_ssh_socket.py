import socket
import threading
import time

import pytest

from labctl.drivers.ssh_socket import NobodyError, Pacer, SilentError, SshError, open_socket

SECOND = b"SSH-2.0-second\r\n"


class Server:
    """Gives each connection its answer, in the order in which they come; empty is silence."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.peers: list[socket.socket] = []

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    def answer(self, *answers: bytes) -> None:
        def serve() -> None:
            for text in answers:
                peer, _ = self.listener.accept()
                self.peers.append(peer)
                if text:
                    peer.sendall(text)

        threading.Thread(target=serve, daemon=True).start()

    def open(self, seconds: float, attempts: int) -> socket.socket:
        end = time.monotonic() + seconds
        return open_socket("127.0.0.1", self.port, end, lambda: None, attempts=attempts)


@pytest.fixture
def server():
    made = Server()
    yield made
    for opened in (made.listener, *made.peers):
        opened.close()


def test_an_attempt_that_is_lost_does_not_hold_up_the_next(server):
    server.answer(b"", SECOND)
    # One attempt a second: whoever waits for the end of the lost one waits for an hour.
    with server.open(3600, attempts=3600) as opened:
        assert opened.recv(100) == SECOND
    assert server.peers[0].recv(1) == b""  # the lost one was hung up on


def test_an_attempt_that_is_answered_late_still_counts(server):
    server.answer(b"", b"")
    timer = threading.Timer(1.5, lambda: server.peers[0].sendall(b"SSH-2.0-late\r\n"))
    timer.start()
    with server.open(20, attempts=2) as opened:
        assert opened.recv(100) == b"SSH-2.0-late\r\n"
    timer.join()


def test_silence_ends_at_the_deadline(server):
    server.answer(b"", b"")
    with pytest.raises(SilentError):
        server.open(0.4, attempts=2)


def test_something_else_than_an_ssh_server_is_a_refusal(server):
    server.answer(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(SshError, match="refuses"):
        server.open(5, attempts=1)


def test_a_closed_port_is_told_at_once(server):
    port = server.port
    server.listener.close()
    with pytest.raises(NobodyError):
        open_socket("127.0.0.1", port, time.monotonic() + 60, lambda: None, attempts=4)


def test_only_a_guest_that_has_not_answered_yet_is_asked_several_times_at_once():
    pacer = Pacer(0.0)
    assert pacer.attempts > 1
    pacer.is_answering = True
    assert pacer.attempts == 1
