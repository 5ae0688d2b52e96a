"""The API's server: a thread with an event loop, on a socket that was opened before."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import uvicorn
from typing_extensions import override

from labctl.api.app import App
from labctl.api.desk import Desk
from labctl.api.protocol import BoundedProtocol
from labctl.drivers.certificates import ServerIdentity
from labctl.drivers.private_file import write_file
from labctl.errors import HostError, InvalidError, LabError

_AT_ONCE = 256  # connections and requests; more are told to come back
_BACKLOG = 128
_KEEP_ALIVE = 15  # seconds
_GRACE = timedelta(seconds=2)  # for answers that are under way when the server stops
_HANDSHAKE = timedelta(seconds=10)
_FAREWELL = timedelta(seconds=1)  # for a client to say that it is done, too
_RENEWAL_TICKS = 6000  # of 0.1 s: so often it is looked whether there is a new certificate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the API listens."""

    host: str
    port: int  # 0: any that is free

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_any(self) -> bool:
        """Does it stand for every address of this machine?"""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @override
    def __str__(self) -> str:
        """As in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read HOST:PORT or [ADDRESS]:PORT. Raises InvalidError."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_number = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536
    if not colon or not host or not is_number or (":" in host and not is_bracketed):
        raise InvalidError(
            f"--listen {text!r} is not like HOST:PORT",
            hint="for example 127.0.0.1:8443, 0.0.0.0:8443 or [::1]:8443; port 0 means any",
        )
    return Endpoint(host=host, port=int(port))


def open_socket(endpoint: Endpoint) -> socket.socket:
    """Listen there. Raises HostError when the port is taken or the address is not this host's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        door = socket.socket(family, kind, protocol)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # "::" is for IPv4, too, as people expect of "everywhere".
                door.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if endpoint.is_any else 1
                )
            door.bind(address)
            door.listen(_BACKLOG)
        except OSError:
            door.close()
            raise
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        raise HostError(
            f"the API cannot listen on {str(endpoint)!r}",
            detail="the port is in use" if is_taken else error.strerror or str(error),
            hint="choose another with --listen HOST:PORT (port 0: any), or none with --no-api",
        ) from error
    return door


@contextlib.contextmanager
def serving_api(
    desk: Desk, app: App, door: socket.socket, find_identity: Callable[[], ServerIdentity]
) -> Iterator[None]:
    """Answer on the socket in a thread of its own; at the end, answers under way are finished.

    Now and then `find_identity` is asked again: certificates are renewed while it runs.
    """
    context = make_context(find_identity())
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody stands between; whoever says so is not believed
        limit_concurrency=_AT_ONCE,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(_GRACE.total_seconds()),
        ssl_context_factory=lambda _config, _default: context,
    )
    config.load()  # what is wrong with it must be seen here, not in the thread
    # Below errors, uvicorn tells what clients do wrong as if it were ours to mend.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config, door, _Renewal(context=context, find_identity=find_identity))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    try:
        while not server.listens.wait(0.1):
            if not thread.is_alive():
                raise HostError("the API's server ended before it began")
        yield
    finally:
        desk.stop.set()  # streams end by this; uvicorn would wait for them
        server.should_exit = True
        thread.join()


def make_context(identity: ServerIdentity) -> ssl.SSLContext:
    """TLS 1.2 and later with these files. Raises InvalidError when OpenSSL does not take them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidError(
            f"the certificate {str(identity.certificate)!r} with the key {str(identity.key)!r} "
            "cannot be used",
            detail=str(error),
        ) from error
    return context


@contextlib.contextmanager
def told_address(desk: Desk, url: str) -> Iterator[None]:
    """Write down where the API answers, for commands on this host, as long as it does."""
    path = desk.settings.api_address
    try:
        write_file(path, f"{url}\n".encode(), mode=0o644)
    except OSError as error:
        raise HostError(
            f"{str(path)!r} cannot be written",
            detail=str(error),
            hint="check the owner of the state directory, and free space",
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@dataclass(slots=True, kw_only=True)
class _Renewal:
    """Gives new connections the certificate that is there now."""

    context: ssl.SSLContext
    find_identity: Callable[[], ServerIdentity]
    _seen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._seen = _look_at(self.find_identity())

    def check(self) -> None:
        """Look whether the files are others than before."""
        try:
            identity = self.find_identity()
            seen = _look_at(identity)
            if seen != self._seen:
                make_context(identity)  # half a pair must not get into the one that is in use
                self.context.load_cert_chain(identity.certificate, identity.key)
                self._seen = seen
                log.info("API: a new certificate, good until %s", identity.expires_at)
        except (LabError, OSError):
            log.exception("API: the certificate could not be looked at; the old one stays")


def _look_at(identity: ServerIdentity) -> tuple[int, ...]:
    found = [identity.certificate.stat(), identity.key.stat()]
    return tuple(number for each in found for number in (each.st_ino, each.st_mtime_ns))


class _Server(uvicorn.Server):
    """uvicorn on a socket that is open already, with a bound for the handshake, too."""

    def __init__(self, config: uvicorn.Config, door: socket.socket, renewal: _Renewal) -> None:
        super().__init__(config)
        self.listens = threading.Event()
        self._door = door
        self._renewal = renewal

    @override
    async def on_tick(self, counter: int) -> bool:
        if counter % _RENEWAL_TICKS == _RENEWAL_TICKS - 1:
            await asyncio.to_thread(self._renewal.check)
        return await super().on_tick(counter)

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()

        def make_protocol() -> asyncio.Protocol:
            return BoundedProtocol(config=self.config, server_state=self.server_state, app_state={})

        server = await asyncio.get_running_loop().create_server(
            make_protocol,
            sock=self._door,
            ssl=self.config.ssl,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE.total_seconds(),
            ssl_shutdown_timeout=_FAREWELL.total_seconds(),
        )
        self.servers = [server]
        self.started = True
        self.listens.set()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()  # who still says nothing had its time
        await asyncio.sleep(0)
