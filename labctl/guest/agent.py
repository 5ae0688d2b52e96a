"""The health agent: asks the application in the guest how it is, and tells labctl over HTTP.

It runs in guests, alone: one file, the standard library of Python 3.7 or newer, no labctl.
Usage: python3 agent.py CONFIG.json, with the keys that `Agent.__init__` reads.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import socket
import sys
import threading
import time
from typing import Any

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the controller comes from outside, with a token
REQUEST_LIMIT = 8192  # bytes of a request's head
REQUEST_SECONDS = 5.0  # a client that is slower is dropped
CLIENTS = 8  # at once; more wait in the kernel's queue
EAGER_SECONDS = 300.0  # so long after the start, a not yet healthy application is asked each second
ANSWER_LIMIT = 8192  # bytes of a rich answer, head and body
METRICS_LIMIT = 4096  # characters
INITIALIZING, HEALTHY, UNHEALTHY, UNKNOWN = "Initializing", "Healthy", "Unhealthy", "Unknown"


class Agent:
    """The verdict on one application, and the two loops that make and tell it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.token_hash = config["tokenSha256"]
        self.listen_address = (config.get("address", EVERYWHERE), config.get("port", 17800))
        self.protocol = config["protocol"]
        self.app_address = (config.get("appAddress", "127.0.0.1"), config["appPort"])
        self.path = config.get("requestPath") or "/"
        self.interval = float(config.get("intervalSeconds", 5))
        self.needed = int(config.get("numberOfProbes", 1))
        # 1.0: the status code tells all. 2.0: the body tells, and Initializing and Unknown exist.
        self.is_rich = config.get("typeHandlerVersion") == "2.0"
        self.grace = float(config.get("gracePeriodSeconds", self.interval * self.needed))
        has_body = self.is_rich and self.protocol != "tcp"
        self.silence = UNKNOWN if has_body else UNHEALTHY  # what no usable answer means
        self.custom_metrics = ""
        self.boot_id = read_boot_id()
        self.started = time.monotonic()
        self.state = INITIALIZING
        self.detail = "not probed yet"
        self.since = int(time.time())
        self.has_been_healthy = False
        self.streak_state = ""
        self.streak = 0
        self.tls: Any = None
        if self.protocol == "https":
            import ssl  # only here: it costs 3 MB

            # The application is on this machine; its certificate names the outside.
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE

    def watch(self) -> None:
        """Probe for ever."""
        while True:
            began = time.monotonic()
            state, detail = self.probe()
            self.note(state, detail)
            time.sleep(max(0.1, self.pause() - (time.monotonic() - began)))

    def pause(self) -> float:
        """Seconds from one probe to the next."""
        is_young = time.monotonic() - self.started < EAGER_SECONDS
        return min(1.0, self.interval) if is_young and not self.has_been_healthy else self.interval

    def note(self, state: str, detail: str) -> None:
        """Count the probe; enough equal ones in a row change the state."""
        self.streak = self.streak + 1 if state == self.streak_state else 1
        self.streak_state = state
        is_settled = self.streak >= self.needed
        if self.is_rich and self.state == INITIALIZING:
            # Silence is no report: an application that is not up yet has its grace period.
            is_settled = is_settled and state != UNKNOWN
            if not is_settled and time.monotonic() - self.started >= self.grace:
                state, is_settled = self.silence, True
                detail = f"no steady answer within {self.grace:g} s; {detail}"
        if not is_settled:
            return
        self.detail = detail
        if state != self.state:
            self.state = state
            self.since = int(time.time())
        self.has_been_healthy = self.has_been_healthy or state == HEALTHY

    def probe(self) -> tuple[str, str]:
        """Ask the application once: (its state, what was seen)."""
        try:
            deadline = time.monotonic() + self.interval
            with socket.create_connection(self.app_address, timeout=self.interval) as plain:
                if self.protocol == "tcp":
                    return HEALTHY, f"{self.place()} accepts"
                return self.ask(plain, deadline)
        except OSError as error:
            return self.silence, f"{self.place()}: {error.strerror or error}"

    def place(self) -> str:
        """Name what is asked, for people."""
        return self.path if self.protocol != "tcp" else f"port {self.app_address[1]}"

    def ask(self, plain: socket.socket, deadline: float) -> tuple[str, str]:
        """Send one GET; exactly 200 is healthy, or what the body of a 2xx says."""
        stream = self.tls.wrap_socket(plain) if self.tls else plain
        # Who is asked in 1.0 does not answer in chunks.
        version = "1.0" if self.is_rich else "1.1"
        with stream:
            host, port = self.app_address
            head = f"GET {self.path} HTTP/{version}\r\nHost: {host}:{port}\r\n"
            head += "User-Agent: labctl-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            stream.sendall(head.encode())
            if self.is_rich:
                answer = receive(stream, deadline, until=None, limit=ANSWER_LIMIT)
            else:
                answer = receive(stream, deadline, until=b"\n", limit=1024)
        words = answer.split(b"\n")[0].split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return self.silence, f"no HTTP answer from {self.path}"
        status = int(words[1][:6])
        seen = f"HTTP {status} from {self.path}"
        if not self.is_rich:
            return (HEALTHY if status == 200 else UNHEALTHY), seen
        if not 200 <= status <= 299:
            return UNKNOWN, seen
        state, metrics = read_rich(answer)
        if state == UNKNOWN:
            return UNKNOWN, f"{seen}, without a valid ApplicationHealthState"
        self.custom_metrics = metrics
        return state, f"{seen}: {state}"

    def listen(self) -> socket.socket:
        """Open the port. Raises OSError when it is taken."""
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(self.listen_address)
        server.listen(64)
        return server

    def serve(self, server: socket.socket) -> None:
        """Answer for ever, a bounded number of clients at once."""
        room = threading.BoundedSemaphore(CLIENTS)
        while True:
            room.acquire()
            try:
                client, _ = server.accept()
                threading.Thread(target=self.answer, args=(client, room), daemon=True).start()
            except (OSError, RuntimeError):  # out of descriptors or threads: it passes
                room.release()
                time.sleep(0.2)

    def answer(self, client: socket.socket, room: threading.Semaphore) -> None:
        """Answer one request and hang up."""
        try:
            with client:
                deadline = time.monotonic() + REQUEST_SECONDS
                client.settimeout(REQUEST_SECONDS)
                head = receive(client, deadline, until=b"\r\n\r\n", limit=REQUEST_LIMIT)
                client.sendall(self.respond(head))
                client.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the client went away; nobody is left to tell
        finally:
            room.release()

    def respond(self, head: bytes) -> bytes:
        """Choose the answer to the head of a request."""
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or b"\r\n\r\n" not in head:
            return response("400 Bad Request", {"error": "bad request"})
        if not self.is_allowed(lines[1:]):
            return response("401 Unauthorized", {"error": "wrong or no token"})
        if words[1] != b"/health":
            return response("404 Not Found", {"error": "only /health is here"})
        if words[0] != b"GET":
            return response("405 Method Not Allowed", {"error": "only GET"})
        body: dict[str, object] = {"state": self.state, "detail": self.detail}
        body.update(since=self.since, bootId=self.boot_id)
        if self.custom_metrics:
            body["customMetrics"] = self.custom_metrics
        return response("200 OK", body)

    def is_allowed(self, headers: list[bytes]) -> bool:
        """Does one of the headers carry the token?"""
        for line in headers:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip()
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                token = value[7:].strip()
            elif name == b"x-labctl-token":
                token = value
            else:
                continue
            if hmac.compare_digest(hashlib.sha256(token).hexdigest(), self.token_hash):
                return True
        return False


def receive(stream: socket.socket, deadline: float, *, until: bytes | None, limit: int) -> bytes:
    """Read up to and with `until`, or a whole rich answer; less when the peer or limit ends it."""
    data = b""
    while not (until in data if until else find_document(data)) and len(data) < limit:
        left = deadline - time.monotonic()
        if left <= 0:
            raise OSError(errno.ETIMEDOUT, "timed out")
        stream.settimeout(left)
        more = stream.recv(limit - len(data))
        if not more:
            break
        data += more
    return data


def find_document(answer: bytes) -> dict[str, Any] | None:
    """Find the JSON object in an HTTP answer; what stands around it is passed over."""
    _, _, body = answer.replace(b"\r\n", b"\n").partition(b"\n\n")
    begin, end = body.find(b"{"), body.rfind(b"}")
    if not 0 <= begin < end:
        return None
    try:
        found = json.loads(body[begin : end + 1].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_rich(answer: bytes) -> tuple[str, str]:
    """Read state and custom metrics, whatever the case of their keys; Unknown when not there."""
    found = {key.lower(): value for key, value in (find_document(answer) or {}).items()}
    state = str(found.get("applicationhealthstate")).strip().capitalize()
    metrics = found.get("custommetrics", "")
    text = metrics if isinstance(metrics, str) else json.dumps(metrics)
    return (
        state if state in {HEALTHY, UNHEALTHY} else UNKNOWN,
        text if len(text) <= METRICS_LIMIT and isinstance(metrics, (str, dict)) else "",
    )


def response(status: str, body: dict[str, object]) -> bytes:
    """Make a whole HTTP response."""
    content = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def read_boot_id() -> str:
    """Return the kernel's id of this boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib costs memory
            return file.read().strip()
    except OSError:
        return ""


def give_up_rights(config: dict[str, Any]) -> None:
    """Stop being root."""
    if os.geteuid() == 0 and "uid" in config:
        os.setgroups([])
        os.setgid(config["uid"])
        os.setuid(config["uid"])


def main(path: str) -> None:
    """Run until killed."""
    with open(path) as file:  # noqa: PTH123 - pathlib costs memory
        config = json.load(file)
    give_up_rights(config)
    agent = Agent(config)
    server = agent.listen()
    serving = threading.Thread(target=agent.serve, args=(server,), daemon=True)
    serving.start()
    agent.watch()


if __name__ == "__main__":
    threading.stack_size(256 * 1024)
    main(sys.argv[1])
