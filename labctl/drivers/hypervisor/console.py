"""A person at the serial console of a domain; Ctrl-] leaves."""

import contextlib
import os
import select
import termios
import threading
import tty
from collections.abc import Iterator

import libvirt

_LEAVE = b"\x1d"  # Ctrl-]
_CHUNK = 4096


def talk(
    connection: libvirt.virConnect, domain: libvirt.virDomain, stdin_fd: int, stdout_fd: int
) -> None:
    """Pass bytes both ways until Ctrl-], the end of input or the end of the domain."""
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain.openConsole(None, stream, 0)  # type: ignore[arg-type]  # None: the first one
    session = _Session(stream)
    try:
        with _raw(stdin_fd):
            session.run(stdin_fd, stdout_fd)
    finally:
        session.close()


class _Session:
    def __init__(self, stream: libvirt.virStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._from_guest = bytearray()
        self._to_guest = bytearray()
        self._ended = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._wanted = (
            libvirt.VIR_STREAM_EVENT_READABLE
            | libvirt.VIR_STREAM_EVENT_ERROR
            | libvirt.VIR_STREAM_EVENT_HANGUP
        )
        stream.eventAddCallback(self._wanted, self._on_event, None)

    def run(self, stdin_fd: int, stdout_fd: int) -> None:
        sources = [stdin_fd, self._wake_read]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, _CHUNK)
                with self._lock:
                    text, ended = bytes(self._from_guest), self._ended
                    self._from_guest.clear()
                _write_all(stdout_fd, text)
                if ended:
                    return
            if stdin_fd in ready:
                typed = os.read(stdin_fd, _CHUNK)
                before, leave, _ = typed.partition(_LEAVE)
                self._send(before)
                if leave or not typed:
                    return

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):  # the other end may be gone already
            self._stream.eventRemoveCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1

    def _send(self, typed: bytes) -> None:
        with self._lock:
            self._to_guest += typed
            self._flush()

    def _flush(self) -> None:
        while self._to_guest:
            sent = self._stream.send(bytes(self._to_guest))
            if sent < 0:  # would block: go on when the stream is writable
                self._stream.eventUpdateCallback(self._wanted | libvirt.VIR_STREAM_EVENT_WRITABLE)
                return
            del self._to_guest[:sent]
        self._stream.eventUpdateCallback(self._wanted)

    def _on_event(self, stream: libvirt.virStream, events: int, _opaque: object) -> None:
        # In the event thread: take what is there and let the terminal's thread write it.
        with self._lock:
            try:
                if events & libvirt.VIR_STREAM_EVENT_READABLE:
                    self._receive(stream)
                if events & libvirt.VIR_STREAM_EVENT_WRITABLE:
                    self._flush()
            except libvirt.libvirtError:
                self._ended = True
            if events & (libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP):
                self._ended = True
            if self._ended:
                with contextlib.suppress(libvirt.libvirtError):
                    stream.eventUpdateCallback(0)
            if self._wake_write >= 0:
                with contextlib.suppress(BlockingIOError):  # awake already
                    os.write(self._wake_write, b"!")

    def _receive(self, stream: libvirt.virStream) -> None:
        received = stream.recv(_CHUNK)
        if isinstance(received, bytes):  # -2: nothing there after all
            if received:
                self._from_guest += received
            else:
                self._ended = True


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
