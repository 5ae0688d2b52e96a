"""One connection to libvirt: opened when first needed, kept alive, opened again when lost."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import libvirt

from labctl.drivers.hypervisor.failure import translate, unreachable
from labctl.drivers.hypervisor.lifecycle import DomainEvent, LifecycleKind, describe_event

T = TypeVar("T")
Listener = Callable[[DomainEvent], None]

_log = logging.getLogger(__name__)

# libvirtd works on 20 requests at once for everybody, and a call cannot be taken back.
_CALLS_IN_FLIGHT = 6
_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 5
_FIRST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 2.0  # seconds

_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


class Connection:
    """Safe to share between threads."""

    def __init__(self, uri: str, *, patience: timedelta) -> None:
        """`patience`: how long a lost connection is tried again before calls fail."""
        self.uri = uri
        self._patience = patience.total_seconds()
        self._slots = threading.BoundedSemaphore(_CALLS_IN_FLIGHT)
        self._lock = threading.RLock()
        self._connection: libvirt.virConnect | None = None
        self._lost: list[libvirt.virConnect] = []  # closed by the next open, never in a callback
        self._was_open = False
        self._is_closing = threading.Event()
        self._listeners: list[Listener] = []

    def call(self, doing: str, operation: Callable[[libvirt.virConnect], T]) -> T:
        """Run `operation`; run it again after a lost connection, so it must be idempotent.

        Raises the LabError that libvirt's error stands for.
        """
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            connection: libvirt.virConnect | None = None
            with self._slots:
                try:
                    connection = self._open()
                    return operation(connection)
                except libvirt.libvirtError as error:
                    if connection is not None and not _is_lost(connection, error):
                        raise translate(error, doing) from error
                    failure = error
            self._drop(connection)
            if not self._was_open or time.monotonic() + pause >= deadline:
                raise unreachable(failure, self.uri) from failure
            if self._is_closing.wait(pause):
                raise unreachable(failure, self.uri) from failure
            pause = min(2 * pause, _LONGEST_PAUSE)

    def converse(self, doing: str, operation: Callable[[libvirt.virConnect], None]) -> None:
        """Run `operation` once, for as long as it takes, beside the calls in flight."""
        connection = self.call(doing, lambda connection: connection)
        try:
            operation(connection)
        except libvirt.libvirtError as error:
            raise translate(error, doing) from error

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each lifecycle event, in the event thread; returns the way out."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def close(self) -> None:
        """Close for good; running calls end with an error."""
        self._is_closing.set()
        with self._lock:
            if self._connection is not None:
                self._lost.append(self._connection)
                self._connection = None
            self._bury()

    def _open(self) -> libvirt.virConnect:
        with self._lock:
            if self._connection is not None:
                return self._connection
            _ensure_event_loop()
            self._bury()
            connection = libvirt.open(self.uri)
            with contextlib.suppress(libvirt.libvirtError):  # local drivers have no keepalive
                connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._on_close, None)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
            )
            self._connection = connection
            is_again, self._was_open = self._was_open, True
        if is_again:
            _log.info("hypervisor %s is back", self.uri)
            self._tell(DomainEvent(name="", kind=LifecycleKind.RESYNC))
        return connection

    def _drop(self, connection: libvirt.virConnect | None) -> bool:
        with self._lock:
            if connection is None or connection is not self._connection:
                return False
            self._connection = None
            self._lost.append(connection)
            return True

    def _bury(self) -> None:
        while self._lost:
            connection = self._lost.pop()
            # The other end is gone or about to be: nothing can be done about an error here.
            with contextlib.suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _on_close(self, connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        # libvirt holds a lock of the connection here, so another thread cleans up and reconnects.
        if self._drop(connection) and not self._is_closing.is_set():
            _log.info("hypervisor %s: connection lost (%s)", self.uri, reason)
            threading.Thread(target=self._reconnect, name="labctl-reconnect", daemon=True).start()

    def _reconnect(self) -> None:
        pause = _FIRST_PAUSE
        while not self._is_closing.wait(pause):
            try:
                self._open()
            except libvirt.libvirtError:
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    def _on_event(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _opaque: object,
    ) -> None:
        described = describe_event(domain.name(), event, detail)
        if described is not None:
            self._tell(described)

    def _tell(self, event: DomainEvent) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - see below
                # One listener's mistake must not keep events from the others.
                _log.exception("listener failed at %s of %s", event.kind, event.name)


def _is_lost(connection: libvirt.virConnect, error: libvirt.libvirtError) -> bool:
    if error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
        return True
    try:
        return not connection.isAlive()
    except libvirt.libvirtError:
        return True


def _ensure_event_loop() -> None:
    # One loop for the process, registered before the first connection is opened; it never ends.
    global _loop  # noqa: PLW0603 - libvirt's own registration is global as well
    with _loop_lock:
        if _loop is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        # Errors come as exceptions; libvirt would print each to stderr as well.
        libvirt.registerErrorHandler(lambda *_: None, None)
        _loop = threading.Thread(target=_run_loop, name="labctl-libvirt-events", daemon=True)
        _loop.start()


def _run_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
