"""Asks instances for their health over HTTP or TCP. A dead instance is an answer, not an error."""

import json
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from labctl.drivers.probe_cause import describe_cause
from labctl.model.instance import HealthState

_METRICS_LIMIT = 4096  # characters
_SETTLE = 0.5  # seconds in which a forwarded port hangs up when nobody listens behind it


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


def warm_up() -> None:
    """Load what HTTP needs; it takes a while, in which an instance boots."""
    import labctl.drivers.probe_http  # noqa: F401


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
    except (OSError, ValueError) as error:
        return _unknown(f"the health agent does not answer: {describe_cause(error)}")
    if status == HTTPStatus.UNAUTHORIZED:
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
    except (OSError, ValueError) as error:
        return _unhealthy(f"{target.path}: {describe_cause(error)}")
    detail = f"HTTP {status} from {target.path}"
    is_healthy = status == HTTPStatus.OK
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
        return _unhealthy(f"port {target.port}: {describe_cause(error)}")
    if has_hung_up:
        return _unhealthy(f"port {target.port}: accepted, then closed at once")
    return ProbeResult(state=HealthState.HEALTHY, detail=f"port {target.port} accepts")


def _get(url: str, headers: dict[str, str], timeout: timedelta) -> tuple[int, bytes]:
    from labctl.drivers.probe_http import get

    return get(url, headers, timeout)


def _unknown(detail: str) -> ProbeResult:
    return ProbeResult(state=HealthState.UNKNOWN, detail=detail, is_silence=True)


def _unhealthy(detail: str) -> ProbeResult:
    return ProbeResult(state=HealthState.UNHEALTHY, detail=detail)
