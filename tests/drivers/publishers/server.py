"""A publisher's web server on loopback, with the faults that servers and networks have."""

import hashlib
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    body: bytes
    etag: str = ""
    date: str = ""
    location: str = ""  # redirect there instead
    status: int = 200
    cut_after: list[int] = field(default_factory=list)  # bytes after which to drop, per request
    ignores_range: bool = False
    wrong_range: bool = False
    hold_after: int | None = None  # send so many bytes, then wait for `release`
    headers: dict = field(default_factory=dict)


class PublisherServer:
    """Serves `pages` by path; notes what was asked for."""

    def __init__(self):
        self.pages = {}
        self.asked = []  # (path, headers)
        self.is_down = False
        self.held = threading.Event()  # a held page has been begun
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path, body, **more):
        content = body.encode() if isinstance(body, str) else body
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        self.pages[path] = Page(body=content, **{"etag": etag, **more})
        return self.pages[path]

    def paths(self):
        return [path for path, _ in self.asked]

    def answer(self, handler):
        self.asked.append((handler.path, dict(handler.headers)))
        page = self.pages.get(handler.path)
        handler.close_connection = True
        if self.is_down:
            return self._plain(handler, 503)
        if page is None:
            return self._plain(handler, 404)
        if page.location:
            return self._plain(handler, 302, Location=page.location)
        if page.status != 200:
            return self._plain(handler, page.status)
        if page.etag and handler.headers.get("If-None-Match") == page.etag:
            return self._plain(handler, 304, ETag=page.etag)
        if page.date and handler.headers.get("If-Modified-Since") == page.date:
            return self._plain(handler, 304)
        return self._send(handler, page)

    def _plain(self, handler, status, **headers):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.send_header("Connection", "close")
        handler.end_headers()

    def _send(self, handler, page):
        begin = 0
        wished = handler.headers.get("Range")
        same = handler.headers.get("If-Range") in {page.etag, page.date, None}
        if wished and same and not page.ignores_range:
            begin = int(wished.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(page.body):
                self._plain(handler, 416, **{"Content-Range": f"bytes */{len(page.body)}"})
                return
            handler.send_response(206)
            told = 0 if page.wrong_range else begin
            end = len(page.body) - 1
            handler.send_header("Content-Range", f"bytes {told}-{end}/{len(page.body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(page.body) - begin))
        handler.send_header("Connection", "close")
        if page.etag:
            handler.send_header("ETag", page.etag)
        if page.date:
            handler.send_header("Last-Modified", page.date)
        for name, value in page.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        body = page.body[begin:]
        if page.cut_after:
            body = body[: page.cut_after.pop(0)]
        if page.hold_after is not None:
            handler.wfile.write(body[: page.hold_after])
            handler.wfile.flush()
            self.held.set()
            self.release.wait(60)
            page.hold_after = None
            return
        handler.wfile.write(body)


A_DATE = formatdate(1_790_000_000, usegmt=True)


def listing(*names):
    """A folder as Apache lists it."""
    rows = "".join(
        f'<tr><td><a href="{name}">{name}</a></td><td>2026-08-26 10:00</td></tr>\n'
        for name in names
    )
    return (
        '<html><head><title>Index of /</title></head><body><table><tr><th><a href="?C=N;O=D">'
        f'Name</a></th></tr><tr><td><a href="../">Parent Directory</a></td></tr>\n{rows}'
        "</table></body></html>"
    )


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def sha512(content):
    return hashlib.sha512(content).hexdigest()
