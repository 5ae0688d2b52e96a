"""The ASGI application: finds the route, lets the caller in, answers, writes down who did what."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from labctl.api.auth import authenticate
from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.failure import translate
from labctl.api.kept import KeptAnswers
from labctl.api.respond import dump
from labctl.api.route import Routes
from labctl.arm.errors import ArmError
from labctl.controller.clock import now as read_clock
from labctl.errors import LabError
from labctl.model.access import Principal, Scope
from labctl.store.audit import add_audit_entry

_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[a-z][a-z0-9.-]{0,30})?")
_NOBODY = Principal(id="", name="", scope=Scope.READ)
_REFUSED = frozenset({401, 403})

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """What is known of a request so far, for the log of who did what."""

    request_id: str
    principal: Principal = _NOBODY
    code: str = ""


class App:
    """Answers HTTP requests from the routes."""

    def __init__(self, desk: Desk, routes: Routes) -> None:
        self._desk = desk
        self._routes = routes
        self._kept = KeptAnswers()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI's entry; only HTTP is served."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        visit = _Visit(request_id=str(uuid4()))
        try:
            response = await self._answer(request, visit)
        except ClientDisconnect:
            return
        response.headers["x-ms-request-id"] = visit.request_id
        response.headers["x-ms-correlation-request-id"] = visit.request_id
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if request.method not in {"GET", "HEAD"} or response.status_code in _REFUSED:
            await run_in_threadpool(self._note, request, visit, response.status_code)
        await response(scope, receive, send)

    async def _answer(self, request: Request, visit: _Visit) -> Response:
        try:
            return await self._dispatch(request, visit)
        except ArmError as error:
            visit.code = error.code
            return _render_error(error)
        except LabError as error:
            log.debug("request %s was refused", visit.request_id, exc_info=error)
            translated = translate(error)
            visit.code = translated.code
            return _render_error(translated)
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("internal error in %s %s", request.method, request.url.path)
            visit.code = "InternalServerError"
            return _render_error(
                ArmError(
                    500,
                    "InternalServerError",
                    f"An internal error, which is a fault of labctl; request {visit.request_id} in "
                    "the server's log tells more.",
                )
            )

    async def _dispatch(self, request: Request, visit: _Visit) -> Response:
        path = request.scope["path"]
        routes, parameters = self._routes.find(path)
        method = "GET" if request.method == "HEAD" else request.method
        # HEAD is GET without a body, but for those that answer it with a status of its own.
        route = routes.get(request.method) or routes.get(method)
        if route is None and routes and None in {each.scope for each in routes.values()}:
            raise _wrong_method(request.method, sorted(routes))
        headers, query = request.headers, request.query_params
        if route is None or route.scope is not None:
            visit.principal = await self._let_in(headers)
        if route is None:
            raise _wrong_method(request.method, sorted(routes)) if routes else _unknown(path)
        if route.scope is not None and not visit.principal.scope.allows(route.scope):
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The token '{visit.principal.name}' has the scope '{visit.principal.scope}'; "
                f"{route.method} {path} needs '{route.scope}'.",
            )
        _check_subscription(self._desk, parameters)
        if route.needs_version:
            _check_version(query)
        base_url = f"{request.url.scheme}://{request.url.netloc}"
        key = (base_url, request.url.path, request.url.query)
        version = self._desk.version if route.is_kept else None
        if version is not None:
            kept = self._kept.find(key, version)
            if kept is not None:
                return kept.render()
        call = Call(
            method=method,
            path=path,
            parameters=parameters,
            query={name.lower(): value for name, value in query.items()},
            headers=dict(headers),
            content=b"" if route.stream else await _read_body(request, route.limit),
            base_url=base_url,
            principal=visit.principal,
            now=read_clock(),
            request_id=visit.request_id,
        )
        if route.stream is not None:
            return await route.stream(self._desk, call, request)
        if route.handler is None:
            raise LookupError(f"nobody answers {route.method} {route.path}")
        answer = await run_in_threadpool(route.handler, self._desk, call)
        if version is not None and answer.status == 200:
            return self._kept.keep(key, version, answer).render()
        return render(answer)

    async def _let_in(self, headers: Headers) -> Principal:
        moment = read_clock()
        given = headers.get("authorization")
        known = self._kept.find_principal(given, self._desk.database.find_version(), moment)
        if known is not None:
            return known
        version = self._desk.database.find_version()
        found = await run_in_threadpool(authenticate, self._desk, given, now=moment)
        self._kept.keep_principal(given, version, moment, found)
        return found

    def _note(self, request: Request, visit: _Visit, status: int) -> None:
        try:
            with self._desk.database.write() as connection:
                add_audit_entry(
                    connection,
                    at=read_clock(),
                    who=visit.principal.name,
                    address=request.client.host if request.client else "",
                    method=request.method[:16],
                    path=request.scope["path"][:2000].encode("utf-8", "replace").decode(),
                    status=status,
                    code=visit.code,
                    request_id=visit.request_id,
                )
        except LabError:
            log.exception("who did what could not be written down")


def render(answer: Answer) -> Response:
    """An answer as HTTP."""
    if answer.body is None:
        return Response(status_code=answer.status, headers=dict(answer.headers))
    if isinstance(answer.body, bytes):
        return Response(answer.body, status_code=answer.status, headers=dict(answer.headers))
    return Response(
        dump(answer.body),
        status_code=answer.status,
        headers=dict(answer.headers),
        media_type="application/json; charset=utf-8",
    )


def _render_error(error: ArmError) -> Response:
    answer = Answer(status=error.status, body={"error": error.document}, headers=error.headers)
    return render(answer)


def _check_subscription(desk: Desk, parameters: Mapping[str, str]) -> None:
    given = parameters.get("subscription")
    if given is not None and given.lower() != desk.subscription_id.lower():
        raise ArmError(
            404,
            "SubscriptionNotFound",
            f"The subscription '{given[:60]}' could not be found. This lab is the subscription "
            f"'{desk.subscription_id}'.",
        )


def _check_version(query: QueryParams) -> None:
    given = next((value for name, value in query.items() if name.lower() == "api-version"), "")
    if not given:
        raise ArmError(
            400,
            "MissingApiVersionParameter",
            "The query parameter 'api-version' is needed; any well-formed one will do, for example "
            "2024-11-01.",
        )
    if not _API_VERSION.fullmatch(given):
        raise ArmError(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{given[:60]}' is not like 2024-11-01 or 2024-11-01-preview.",
        )


async def _read_body(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise _too_large(limit)
    return bytes(content)


def _too_large(limit: int) -> ArmError:
    return ArmError(
        413,
        "RequestContentTooLarge",
        f"The request's body has more than {limit} bytes.",
        headers={"Connection": "close"},
    )


def _wrong_method(method: str, known: list[str]) -> ArmError:
    return ArmError(
        405,
        "MethodNotAllowed",
        f"{method} is not known here, but {', '.join(known)}.",
        headers={"Allow": ", ".join(known)},
    )


def _unknown(path: str) -> ArmError:
    return ArmError(
        404, "InvalidResourceType", f"Nothing in this lab answers to the path '{path[:500]}'."
    )
