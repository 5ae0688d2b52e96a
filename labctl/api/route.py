"""Which function answers which call: paths in any case, found segment by segment."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.model.access import Scope

Handler = Callable[[Desk, Call], Answer]
# For what does not fit into memory or does not end: the body is still in the request.
StreamHandler = Callable[[Desk, Call, Request], Awaitable[Response]]

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call that the API understands. The OpenAPI document is made from these."""

    method: str
    path: str  # "/subscriptions/{subscription}/..."
    handler: Handler | None = None  # runs in a thread; must not wait for anything
    stream: StreamHandler | None = None
    scope: Scope | None = Scope.READ  # None: for everybody, without a token
    summary: str
    needs_version: bool = True  # ?api-version=
    limit: int = 4 * MIB  # bytes of the body; ARM has the same
    is_kept: bool = False  # its answer is the same until the store or the board changes
    is_form: bool = False  # the body is a form, not JSON
    query: Mapping[str, str] = field(default_factory=dict)  # further keys: what they are for
    request: Mapping[str, Any] | None = None  # JSON Schema of the body; None: it has none
    response: Mapping[str, Any] | None = None  # JSON Schema of the usual answer
    statuses: tuple[int, ...] = (200,)  # of answers that are no errors
    media_type: str = "application/json"  # of the usual answer
    request_type: str = "application/json"  # of the body, where it is no form


@dataclass(slots=True)
class _Node:
    children: "dict[str, _Node]" = field(default_factory=dict)  # by segment in lower case
    parameter: "_Node | None" = None
    name: str = ""  # of the parameter that leads here
    routes: dict[str, Route] = field(default_factory=dict)  # by method


class Routes:
    """All routes, found by path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = tuple(routes)
        self._root = _Node()
        for route in self.all:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in _split(route.path):
            if segment.startswith("{"):
                if node.parameter is None:
                    node.parameter = _Node(name=segment.strip("{}"))
                if node.parameter.name != segment.strip("{}"):
                    raise ValueError(f"two names for one parameter: {route.path}")
                node = node.parameter
            else:
                node = node.children.setdefault(segment.lower(), _Node())
        if route.method in node.routes:
            raise ValueError(f"two routes for {route.method} {route.path}")
        node.routes[route.method] = route

    def find(self, path: str) -> tuple[Mapping[str, Route], dict[str, str]]:
        """The routes of a path by method, and its parameters; no routes: nobody knows it."""
        return _find(self._root, _split(path), {}) or ({}, {})


def _find(
    node: _Node, segments: list[str], parameters: dict[str, str]
) -> tuple[Mapping[str, Route], dict[str, str]] | None:
    if not segments:
        return (node.routes, parameters) if node.routes else None
    head, rest = segments[0], segments[1:]
    child = node.children.get(head.lower())
    # A name may be spelled like a fixed segment elsewhere: a scale set called "virtualMachines".
    found = None if child is None else _find(child, rest, parameters)
    if found is None and node.parameter is not None and head:
        found = _find(node.parameter, rest, {**parameters, node.parameter.name: head})
    return found


def _split(path: str) -> list[str]:
    return path.strip("/").split("/")
