"""The streams of one SSH command: input, outputs and end, in one thread, with a deadline."""

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

OUTPUT_LIMIT = 64 * 1024  # bytes of each stream that are kept, the last ones
_SLICE = 0.2  # seconds between two looks at whether to give up
_SEND = 5.0  # seconds that one write may wait for the peer
_LINGER = 1.0  # seconds that the output may stay open after the command's end
_FLOOD = 10.0  # the same, while something comes

Check = Callable[[], None]  # raises to give up a wait
OnOutput = Callable[[bytes], None]


def is_ready(descriptor: int, seconds: float, *, for_writing: bool = False) -> bool:
    """Wait until a descriptor can be read or written, or has failed. No limit to its number."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if for_writing else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Tail:
    """The last bytes of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append."""
        self._data += data
        if len(self._data) > 2 * OUTPUT_LIMIT:
            del self._data[:-OUTPUT_LIMIT]

    @property
    def text(self) -> str:
        """As text; what is not UTF-8 is replaced."""
        return bytes(self._data[-OUTPUT_LIMIT:]).decode(errors="replace")


class Exchange:
    """One command's streams, in one thread: wait, drain both outputs, feed the input."""

    def __init__(
        self, channel: "paramiko.Channel", stdin: bytes, on_output: OnOutput | None
    ) -> None:
        self._channel = channel
        self._stdin = memoryview(stdin)
        self._on_output = on_output
        self.stdout = Tail()
        self.stderr = Tail()
        channel.settimeout(_SEND)
        if not stdin:
            channel.shutdown_write()

    def finish(self, deadline: float, check: Check) -> bool:
        """Return whether the command ended in time."""
        channel = self._channel
        ended_at: float | None = None
        descriptor = channel.fileno()
        while True:
            check()
            self._feed()
            drained = self._drain()
            now = time.monotonic()
            if channel.closed or (channel.eof_received and channel.status_event.is_set()):
                self._drain()
                return True
            if channel.status_event.is_set():
                # The command ended, but a child of it holds the output open.
                ended_at = ended_at or now
                if now - ended_at > (_FLOOD if drained else _LINGER):
                    return True
            if now >= deadline:
                return False
            pause = min(_SLICE, deadline - now)
            if channel.eof_received:
                channel.status_event.wait(pause)  # the descriptor stays readable from now on
            elif not drained:
                is_ready(descriptor, 0.02 if self._stdin else pause)

    def _feed(self) -> None:
        while self._stdin and self._channel.send_ready():
            try:
                sent = self._channel.send(bytes(self._stdin[: 32 * 1024]))
            except OSError:
                if not self._channel.closed:
                    raise
                sent = 0
            self._stdin = self._stdin[sent:]
            if sent == 0:  # the command ended without reading all of its input
                self._stdin = memoryview(b"")
            elif not self._stdin:
                self._channel.shutdown_write()

    def _drain(self) -> bool:
        channel, any_read = self._channel, False
        while channel.recv_ready():
            data = channel.recv(64 * 1024)
            self.stdout.add(data)
            if self._on_output is not None:
                self._on_output(data)
            any_read = True
        while channel.recv_stderr_ready():
            self.stderr.add(channel.recv_stderr(64 * 1024))
            any_read = True
        return any_read
