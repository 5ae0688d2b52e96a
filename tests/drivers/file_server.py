"""A web server on loopback that wants a credential, or is broken, as a test says."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files` by path; `requests` are (method, path with query, headers)."""

    def __init__(self):
        self.files = {}
        self.moved = {}
        self.token = None  # what Authorization must carry; None: nothing
        self.uses_left = None  # how often the token is good; None: for ever
        self.status = None  # answer everything with this
        self.knows_head = True
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer._answer(self)

            def do_HEAD(self):
                outer._answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def _lets_in(self, given):
        if self.token and given != f"Bearer {self.token}":
            return False
        if self.uses_left is not None:
            self.uses_left -= 1
        return self.uses_left is None or self.uses_left >= 0

    def _answer(self, handler):
        self.requests.append((handler.command, handler.path, dict(handler.headers)))
        path = handler.path.partition("?")[0]
        body, status, headers = b"", 200, {}
        if self.status is not None:
            status = self.status
        elif handler.command == "HEAD" and not self.knows_head:
            status = 405
        elif path in self.moved:
            status, headers["Location"] = 302, self.moved[path]
        elif not self._lets_in(handler.headers.get("Authorization")):
            status = 401
        elif path not in self.files:
            status = 404
        else:
            body = self.files[path]
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)
