"""The application that health tests watch: /health, /version and /greeting on port 8080."""

# http.server would take seconds to import on an emulated processor; plain sockets take a fraction.
import socket
from pathlib import Path

PORT = 8080
PATIENCE_SECONDS = 5.0
LONGEST_REQUEST = 8192


def load_settings(path: str) -> dict[str, str]:
    """Read a file of KEY=value lines."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def answer(path: str, image: dict[str, str]) -> tuple[str, str]:
    """Return status line and body for a request of `path`."""
    if path == "/health":
        if image["IMAGE_FAULT"] == "unhealthy":
            return "503 Service Unavailable", "unhealthy\n"
        return "200 OK", "ok\n"
    if path == "/version":
        return "200 OK", image["IMAGE_VERSION"] + "\n"
    if path == "/greeting":
        return "200 OK", image["IMAGE_GREETING"] + "\n"
    return "404 Not Found", "not found\n"


def serve(connection: socket.socket, image: dict[str, str]) -> None:
    """Answer one request and close."""
    connection.settimeout(PATIENCE_SECONDS)
    request = b""
    while b"\r\n\r\n" not in request and len(request) < LONGEST_REQUEST:
        chunk = connection.recv(4096)
        if not chunk:
            return
        request += chunk
    words = request.split(b"\r\n", 1)[0].split()
    path = words[1].decode("ascii", "replace") if len(words) > 1 else ""
    status, text = answer(path, image)
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + body)


def main() -> None:
    """Serve one request after the other until the service is stopped."""
    image = load_settings("/etc/labctl-image")
    with socket.create_server(("", PORT), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve(connection, image)
                except OSError:
                    continue  # the client went away; the next one counts


main()
