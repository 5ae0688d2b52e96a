"""A switchable application, and the health agents as real processes on loopback."""

import errno
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

TOKEN = "c0ffee" * 10
GUEST = Path(__file__).parents[2] / "labctl" / "guest"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Application:
    """Answers each path with the status and body that the test sets."""

    def __init__(self, tls=None):
        self.status = 200
        self.body = b"ok\n"
        self.paths = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.paths.append(self.path)
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Agent:
    kind: str
    directory: Path
    interpreter: str = "/usr/bin/python3"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def start(self, **config):
        values = {
            "tokenSha256": sha256(TOKEN.encode()).hexdigest(),
            "tokenLineSha256": sha256(f"{TOKEN}\n".encode()).hexdigest(),
            "port": self.port,
            "protocol": "http",
            "requestPath": "/health",
            "intervalSeconds": 1,
            "numberOfProbes": 1,
            **config,
        }
        (self.directory / "config.json").write_text(json.dumps({**values, "address": "127.0.0.1"}))
        lines = values
        if self.kind == "cs":
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            lines = {**values, "address": "127.0.0.1", "bootId": boot_id}
        (self.directory / "config").write_text(
            "".join(f"{key}={value}\n" for key, value in lines.items())
        )
        commands = {
            "py": [self.interpreter, "-ISB", GUEST / "agent.py", self.directory / "config.json"],
            "sh": ["busybox", "sh", GUEST / "agent.sh", self.directory],
            "cs": ["mono", self.interpreter, self.directory / "config"],
        }
        self.process = subprocess.Popen(commands[self.kind], start_new_session=True)
        self.wait(lambda: self.get() is not None)

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def get(self, path="/health", headers=None, method="GET"):
        """(status, body), or None when nobody answers."""
        if headers is None:
            headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=8) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return None

    def verdict(self):
        _, body = self.get()
        return body["state"], body["detail"]

    def wait(self, condition, seconds=10):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            threading.Event().wait(0.05)

    def raw(self, data):
        with socket.create_connection(("127.0.0.1", self.port), timeout=8) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while more := connection.recv(4096):
                    answer += more
            except ConnectionError:
                return b"reset"
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # what shutdown says after a reset
                    raise
                return b"reset"
            return answer


@pytest.fixture
def application():
    app = Application()
    yield app
    app.close()


@pytest.fixture(scope="session")
def windows_agent(tmp_path_factory):
    """The agent for Windows, compiled by Mono, which stands for .NET here."""
    library = Path("/usr/lib/mono/4.5/System.Runtime.Serialization.dll")
    if shutil.which("mcs") is None or shutil.which("mono") is None or not library.exists():
        pytest.skip("Mono is not installed; CONTRIBUTING.md names its packages")
    program = tmp_path_factory.mktemp("agent") / "agent.exe"
    libraries = (
        *("System.Core", "System.Xml", "System.Xml.Linq"),
        "System.Runtime.Serialization",
    )
    subprocess.run(
        [
            *("mcs", "-langversion:5", "-warnaserror", f"-out:{program}"),
            *(f"-r:{library}.dll" for library in libraries),
            GUEST / "windows" / "agent.cs",
        ],
        check=True,
    )
    return program


@pytest.fixture(params=["py", "sh", "cs"])
def agent(request, tmp_path):
    agent = Agent(request.param, tmp_path)
    if request.param == "cs":
        agent.interpreter = request.getfixturevalue("windows_agent")
    yield agent
    agent.stop()


class RawServer:
    """Sends the same bytes to everybody, and keeps the connection open."""

    def __init__(self):
        self.answer = b""
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                connection.recv(65536)
                connection.sendall(self.answer)
            except OSError:
                return
            self.open.append(connection)

    def close(self):
        self.listener.close()
        for connection in self.open:
            connection.close()


@pytest.fixture
def raw_server():
    server = RawServer()
    yield server
    server.close()
