"""The API's server: a thread with an event loop, on a socket that was opened before."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import uvicorn
from typing_extensions import override

from labctl.api.app import App
from labctl.api.desk import Desk
from labctl.api.protocol import BoundedProtocol
from labctl.drivers.certificates import ServerIdentity
from labctl.drivers.private_file import write_file
from labctl.errors import HostError, InvalidError

_AT_ONCE = 256  # connections and requests; more are told to come back
_BACKLOG = 128
_KEEP_ALIVE = 15  # seconds
_GRACE = timedelta(seconds=2)  # for answers that are under way when the server stops
_HANDSHAKE = timedelta(seconds=10)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thread:
    server: "_Server"
    thread: threading.Thread


@contextlib.contextmanager
def serving_api(
    desk: Desk, app: App, door: socket.socket, identity: ServerIdentity
) -> Iterator[None]:
    """Answer on the socket in a thread of its own; at the end, answers under way are finished."""
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
        ssl_context_factory=lambda _config, _default: make_context(identity),
    )
    config.load()  # what is wrong with it must be seen here, not in the thread
    # uvicorn logs what clients do wrong as if it were ours to mend.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = _Server(config, door)
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
    try:
        context.load_cert_chain(os.fspath(identity.certificate), os.fspath(identity.key))
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


class _Server(uvicorn.Server):
    """uvicorn on a socket that is open already, with a bound for the handshake, too."""

    def __init__(self, config: uvicorn.Config, door: socket.socket) -> None:
        super().__init__(config)
        self.listens = threading.Event()
        self._door = door

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()

        def make_protocol() -> asyncio.Protocol:
            return BoundedProtocol(config=self.config, server_state=self.server_state, app_state={})

        bound = _HANDSHAKE.total_seconds()
        server = await asyncio.get_running_loop().create_server(
            make_protocol,
            sock=self._door,
            ssl=self.config.ssl,
            backlog=_BACKLOG,
            ssl_handshake_timeout=bound,
            ssl_shutdown_timeout=bound,
        )
        self.servers = [server]
        self.started = True
        self.listens.set()
