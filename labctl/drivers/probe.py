"""Asks instances for their health over HTTP or TCP. A dead instance is an answer, not an error."""

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection

from labctl.model.instance import HealthState

_BODY_LIMIT = 64 * 1024  # bytes
_METRICS_LIMIT = 4096  # characters
_SETTLE = 0.5  # seconds in which a forwarded port hangs up when nobody listens behind it

# An application's certificate names its service, not the port that labctl asks.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTarget:
    """The health agent of an instance; it knows the verdict."""

    host: str
    port: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """An application that is asked directly; exactly 200 is healthy."""

    scheme: str  # "http", "https"
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpTarget:
    """An application that is healthy while it accepts connections.

    Behind a forwarded port (network `user`) the forwarder accepts for it. A guest that refuses is
    noticed, because the forwarder hangs up; one that is silent, without network, is not.
    """

    host: str
    port: int


ProbeTarget = AgentTarget | HttpTarget | TcpTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One answer."""

    state: HealthState
    detail: str  # "HTTP 503 from /health"
    custom_metrics: str = ""
    is_silence: bool = False  # nobody answered: the agent has not said Unknown, labctl does


def check(target: ProbeTarget, *, timeout: timedelta) -> ProbeResult:
    """Ask once; never takes longer than `timeout`, never raises for what the target does.

    An agent that does not answer is Unknown, an application that does not is Unhealthy.
    """
    match target:
        case AgentTarget():
            return _ask_agent(target, timeout)
        case HttpTarget():
            return _ask_application(target, timeout)
        case TcpTarget():
            return _knock(target, timeout)


def _ask_agent(target: AgentTarget, timeout: timedelta) -> ProbeResult:
    headers = {"Authorization": f"Bearer {target.token}"}
    try:
        status, body = _get(f"http://{target.host}:{target.port}/health", headers, timeout)
    except (requests.RequestException, OSError, ValueError) as error:
        return _unknown(f"the health agent does not answer: {_reason(error)}")
    if status == requests.codes.unauthorized:
        return _unknown("the health agent does not accept the token of this instance")
    try:
        document: Any = json.loads(body)
        state, detail = HealthState(document["state"]), str(document["detail"])[:500]
        metrics = str(document.get("customMetrics", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _unknown(f"no health agent answers, but something else (HTTP {status})")
    # It is an application's text, and will be printed: nothing that a terminal acts on.
    metrics = "".join(character for character in metrics if character.isprintable())
    if len(metrics) > _METRICS_LIMIT:
        metrics = ""
    return ProbeResult(state=state, detail=detail, custom_metrics=metrics)


def _ask_application(target: HttpTarget, timeout: timedelta) -> ProbeResult:
    url = f"{target.scheme}://{target.host}:{target.port}{target.path}"
    try:
        status, _ = _get(url, {}, timeout)
    except (requests.RequestException, OSError, ValueError) as error:
        return _unhealthy(f"{target.path}: {_reason(error)}")
    detail = f"HTTP {status} from {target.path}"
    is_healthy = status == requests.codes.ok
    return ProbeResult(
        state=HealthState.HEALTHY if is_healthy else HealthState.UNHEALTHY, detail=detail
    )


def _knock(target: TcpTarget, timeout: timedelta) -> ProbeResult:
    seconds = timeout.total_seconds()
    try:
        with socket.create_connection((target.host, target.port), timeout=seconds) as opened:
            opened.settimeout(min(_SETTLE, seconds))
            try:
                has_hung_up = opened.recv(1, socket.MSG_PEEK) == b""
            except TimeoutError:
                has_hung_up = False  # it waits for us to speak, as most servers do
    except OSError as error:
        return _unhealthy(f"port {target.port}: {_reason(error)}")
    if has_hung_up:
        return _unhealthy(f"port {target.port}: accepted, then closed at once")
    return ProbeResult(state=HealthState.HEALTHY, detail=f"port {target.port} accepts")


# --- HTTP with a total deadline -------------------------------------------------------------------


class _Deadline:
    """Shuts the socket of one request when its time is over, whatever the request waits for."""

    def __init__(self, timeout: timedelta) -> None:
        self.has_passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout.total_seconds(), self._pass)
        self._timer.daemon = True

    def watch(self, opened: socket.socket | None) -> None:
        self._socket = opened
        if self.has_passed:
            self._pass()

    def __enter__(self) -> Self:
        self._timer.start()
        _local.deadline = self
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _local.deadline = None
        self._socket = None

    def _pass(self) -> None:
        self.has_passed = True
        opened = self._socket
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


class _Local(threading.local):
    """Each thread's session, and the deadline of its request that is under way."""

    session: requests.Session | None = None
    deadline: _Deadline | None = None


_local = _Local()


class _Http(HTTPConnection):
    @override
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)


class _Https(HTTPSConnection):
    @override
    def _new_conn(self) -> socket.socket:
        opened = super()._new_conn()
        _watch(opened)  # before the handshake, which may hang, too
        return opened

    @override
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)  # the handshake has replaced it


def _watch(opened: socket.socket | None) -> None:
    if _local.deadline is not None:
        _local.deadline.watch(opened)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _session() -> requests.Session:
    if _local.session is None:
        session = requests.Session()
        session.trust_env = False  # proxies and .netrc are not for instances
        session.verify = False
        session.headers.update({"User-Agent": "labctl", "Connection": "close"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(max_retries=0, pool_connections=1, pool_maxsize=1))
        _local.session = session
    return _local.session


def _get(url: str, headers: dict[str, str], timeout: timedelta) -> tuple[int, bytes]:
    """GET with one deadline for all of it; that of requests is for each read."""
    with _Deadline(timeout) as deadline:
        try:
            with _session().get(
                url,
                headers=headers,
                timeout=timeout.total_seconds(),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = answer.raw.read(_BODY_LIMIT)
                status = answer.status_code
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if deadline.has_passed:
                raise TimeoutError("timed out") from error
            raise OSError(_reason(error)) from error
    if deadline.has_passed:  # a shut socket looks like the end of the answer
        raise TimeoutError("timed out")
    return status, body


def _unknown(detail: str) -> ProbeResult:
    return ProbeResult(state=HealthState.UNKNOWN, detail=detail, is_silence=True)


def _unhealthy(detail: str) -> ProbeResult:
    return ProbeResult(state=HealthState.UNHEALTHY, detail=detail)


def _reason(error: BaseException) -> str:
    """The reason at the bottom of the chain, without the layers above it."""
    deepest: BaseException = error
    while (cause := deepest.__cause__ or deepest.__context__) is not None:
        deepest = cause
    if isinstance(error, TimeoutError) or isinstance(deepest, TimeoutError):
        return "timed out"
    if isinstance(deepest, OSError) and deepest.strerror:
        return deepest.strerror
    return str(deepest)[:200] or type(deepest).__name__
