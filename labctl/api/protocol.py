"""HTTP with bounds: a slow, silent or endless client holds neither a slot nor memory for long."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_BYTES = 32 * 1024  # of the request line and all headers
HEADER_SECONDS = 10.0  # from the first byte, or from the connection, to the end of the headers
IDLE_SECONDS = 40.0  # without a byte, while a body is awaited or an answer is not taken
OF_ONE_ADDRESS = 192  # connections; the rest of what the server takes is for others
LINGER_SECONDS = 2.0  # for a client that still sends what was refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BoundedProtocol(HttpToolsProtocol):
    """One connection. uvicorn itself only bounds the time between two requests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  as uvicorn gives them
        super().__init__(*arguments, **named)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._header_bytes = 0
        self._is_reading = False  # a request has begun and is not here as a whole

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request soon."""
        super().connection_made(transport)
        if self._is_one_too_many():
            text = f"Your address has {OF_ONE_ADDRESS} connections already; close some."
            self._refuse(503, "ServerBusy", text)
            return
        self._arm("headers", HEADER_SECONDS)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        for name in list(self._timers):
            self._disarm(name)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        """Take bytes; more must follow soon while a request is not whole."""
        self._disarm("idle")
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        # uvicorn's own timer ended with these bytes, and begins again only with the next answer.
        is_silent = self._is_reading or cycle is None or cycle.response_complete
        if is_silent and "headers" not in self._timers:
            self._arm("idle", IDLE_SECONDS)

    @override
    def on_message_begin(self) -> None:
        """Its headers must end soon."""
        super().on_message_begin()
        self._header_bytes, self._is_reading = 0, True
        if "headers" not in self._timers:
            self._arm("headers", HEADER_SECONDS)

    @override
    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url))
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        """Only the body is awaited now."""
        self._disarm("headers")
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        """The request is here."""
        self._is_reading = False
        self._disarm("linger")
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """A body that nobody waited for is not listened to for long."""
        super().on_response_complete()
        if self._is_reading and not self.transport.is_closing():
            self._arm("linger", LINGER_SECONDS)

    @override
    def pause_writing(self) -> None:
        """The client takes nothing."""
        super().pause_writing()
        self._arm("taking", IDLE_SECONDS)

    @override
    def resume_writing(self) -> None:
        """It does again."""
        self._disarm("taking")
        super().resume_writing()

    @override
    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or too much of it, in the shape of every other error."""
        if self._header_bytes > HEADER_BYTES:
            text = f"The request line and the headers have more than {HEADER_BYTES} bytes."
            self._refuse(431, "RequestHeaderFieldsTooLarge", text)
        else:
            self._refuse(400, "BadRequest", "This is not an HTTP request.")

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        chosen: Any = _answer_busy if app is service_unavailable else app
        super()._start_asgi_task(cycle, chosen)

    def _is_one_too_many(self) -> bool:
        """Connections cost nothing, not even a token; one client must not have all of them."""
        if self.client is None:
            return False
        mine = self.client[0]
        found = (getattr(each, "client", None) for each in self.connections)
        return sum(1 for each in found if each and each[0] == mine) > OF_ONE_ADDRESS

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES:
            raise ValueError("too many bytes before the body")  # httptools ends the parse with it

    def _refuse(self, status: int, code: str, text: str) -> None:
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:  # not in the midst of another answer
            content = _dump(code, text)
            head = (
                f"HTTP/1.1 {status} {code}\r\ncontent-type: application/json; charset=utf-8\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + content)
        self.transport.close()

    def _arm(self, name: str, seconds: float) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_later(seconds, self._expire, name)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, name: str) -> None:
        self._timers.pop(name, None)
        if name == "headers" and self._is_reading:
            text = f"The headers did not end within {HEADER_SECONDS:.0f} seconds."
            self._refuse(408, "RequestTimeout", text)
        elif name == "taking":
            self.transport.abort()  # what is written would wait for ever to be taken
        else:
            self.transport.close()


async def _answer_busy(scope: Message, receive: Receive, send: Send) -> None:
    """More is asked at once than this server answers at once."""
    del scope, receive
    content = _dump("ServerBusy", "The server answers too many requests now; ask again later.")
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _dump(code: str, text: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": text}}).encode()
