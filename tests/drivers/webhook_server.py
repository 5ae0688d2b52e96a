"""A server on loopback that takes what is posted and answers as a test says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebhookServer:
    """`taken` are (path, headers, body); `answers` are given first, then `default`."""

    def __init__(self):
        self.taken = []
        self.answers = []
        self.default = (200, b"{}", {})
        self.came = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.came:
                    outer.taken.append((self.path, dict(self.headers), body))
                    status, content, headers = (
                        outer.answers.pop(0) if outer.answers else outer.default
                    )
                    outer.came.notify_all()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def documents(self):
        return [json.loads(body) for _, _, body in self.taken]

    def await_taken(self, count, seconds=10):
        with self.came:
            assert self.came.wait_for(lambda: len(self.taken) >= count, seconds)

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
