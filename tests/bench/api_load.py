"""A client that asks as fast as it is answered: `python -m tests.bench.api_load`.

It works in a process and on a core of its own, so that it takes nothing from the server.
"""

import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

_CHUNK = 2**18
_FEWEST = 20  # jobs
_AT_MOST = 15.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: each job is some requests, one after another."""

    port: int
    jobs: list[list[str]]  # paths with their queries; every connection takes one after another
    token: str
    connections: int
    seconds: float
    cpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How it went."""

    p50: float  # milliseconds of a job
    p99: float
    rate: float  # requests per second


@dataclass(slots=True)
class _Client:
    """One connection that is kept alive."""

    door: socket.socket
    requests: list[list[bytes]]
    took: list[float] = field(default_factory=list)  # seconds of each job
    answered: int = 0
    job: int = 0
    place: int = 0  # of the request in its job
    began: float = 0.0
    head: bytes = b""  # of an answer whose header is not whole
    awaited: int = -1  # bytes of the body that are still to come; -1: the header is read

    def ask(self) -> None:
        if self.place == 0:
            self.began = time.perf_counter()
        self.door.sendall(self.requests[self.job][self.place])

    def take(self) -> None:
        """Read what is there; when an answer is whole, ask again."""
        content = self.door.recv(_CHUNK)
        if not content:
            raise ConnectionError("the server has closed the connection")
        if self.awaited < 0:
            self.head += content
            head, separator, rest = self.head.partition(b"\r\n\r\n")
            if not separator:
                return
            lines = head.lower().split(b"\r\n")
            if b" 200 " not in lines[0]:
                raise ConnectionError(head.decode() + rest.decode(errors="replace")[:500])
            length = next(each for each in lines if each.startswith(b"content-length:"))
            self.awaited, self.head = int(length.partition(b":")[2]), b""
            content = rest
        self.awaited -= len(content)
        if self.awaited:
            return
        self.awaited = -1
        self.answered += 1
        self.place += 1
        if self.place == len(self.requests[self.job]):
            self.took.append(time.perf_counter() - self.began)
            self.place = 0
            self.job = (self.job + 1) % len(self.requests)
        self.ask()


def run(load: Load) -> Answered:
    """Ask for some seconds, longer where few jobs are done, after a start that does not count."""
    os.sched_setaffinity(0, {load.cpu})
    requests = [[_encode(path, load) for path in job] for job in load.jobs]
    clients = []
    with selectors.DefaultSelector() as selector:
        for _ in range(load.connections):
            door = socket.create_connection(("127.0.0.1", load.port), timeout=30)
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clients.append(_Client(door=door, requests=requests))
            selector.register(door, selectors.EVENT_READ, clients[-1])
        for client in clients:
            client.ask()
        # What is kept after it was made once is kept now; that does not count.
        _take_for(selector, load.seconds / 10, until=lambda: all(each.took for each in clients))
        for client in clients:
            client.took.clear()
            client.answered = 0
        began = time.perf_counter()
        _take_for(
            selector,
            load.seconds,
            until=lambda: sum(len(each.took) for each in clients) >= _FEWEST,
        )
        lasted = time.perf_counter() - began
    for client in clients:
        client.door.close()
    took = sorted(each for client in clients for each in client.took)
    if not took:
        raise TimeoutError(f"no job was done within {_AT_MOST} s")
    return Answered(
        p50=took[len(took) // 2] * 1000,
        p99=took[min(len(took) - 1, len(took) * 99 // 100)] * 1000,
        rate=sum(client.answered for client in clients) / lasted,
    )


def _take_for(
    selector: selectors.BaseSelector, seconds: float, *, until: Callable[[], bool]
) -> None:
    began = time.perf_counter()
    while True:
        lasted = time.perf_counter() - began
        if lasted >= _AT_MOST or (lasted >= seconds and until()):
            return
        for key, _ in selector.select(timeout=1):
            key.data.take()


def _encode(path: str, load: Load) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\n"
        f"Authorization: Bearer {load.token}\r\nAccept: application/json\r\n\r\n"
    ).encode()


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    json.dump(asdict(run(Load(**given))), sys.stdout)


if __name__ == "__main__":
    main()
