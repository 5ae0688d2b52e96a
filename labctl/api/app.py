"""The ASGI application: finds the route, lets the caller in, answers, writes down who did what."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from labctl import __version__
from labctl.api.auth import authenticate
from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.failure import translate
from labctl.api.guard import (
    FAULTS_NOTED,
    REFUSALS_ANSWERED,
    REFUSALS_NOTED,
    REFUSALS_NOTED_OF_ALL,
    FailedLogins,
    find_base_url,
    read_body,
    refuse_often,
    wants_strict_transport,
)
from labctl.api.kept import KeptAnswers, Key
from labctl.api.respond import dump
from labctl.api.route import Handler, Route, Routes
from labctl.arm.errors import ArmError
from labctl.controller.clock import now as read_clock
from labctl.errors import LabError
from labctl.model.access import Principal, Scope
from labctl.store.audit import add_audit_entry, remove_audit_entries
from labctl.store.tokens import note_use

_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[a-z][a-z0-9.-]{0,30})?")
_NOBODY = Principal(id="", name="", scope=Scope.READ)
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({401, 403})
_AUDIT_LIFE = timedelta(days=90)
_TIDY = timedelta(hours=1)
_USE = timedelta(minutes=1)  # so often it is written down that a token was used

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """What is known of a request so far, for the log of who did what."""

    request_id: str
    at: datetime
    base_url: str = ""
    principal: Principal = _NOBODY
    who: str = ""
    code: str = ""
    route: Route | None = None


class App:
    """Answers HTTP requests from the routes."""

    def __init__(self, desk: Desk, routes: Routes) -> None:
        self._desk = desk
        self._routes = routes
        self._kept = KeptAnswers()
        self._failed = FailedLogins()
        self._faults = FailedLogins()  # the same by token: what it may not do, or does wrong
        self._used: dict[str, datetime] = {}  # when the use of a token was last written down
        self._tidied_at: datetime | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI's entry; only HTTP is served."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        visit = _Visit(request_id=str(uuid4()), at=read_clock())
        began = perf_counter()
        try:
            response = await self._answer(request, visit)
        except ClientDisconnect:
            return
        is_noted = request.method not in _LOOKING or response.status_code in _REFUSED
        # Whatever strangers are refused for counts: each of them would else fill the store.
        is_stranger = not (visit.principal.id or visit.who)
        if response.status_code == 401 or (is_noted and is_stranger):
            count = self._failed.note(_address(request), visit.at)
            of_all = self._failed.note("*", visit.at)
            is_noted = count <= REFUSALS_NOTED and of_all <= REFUSALS_NOTED_OF_ALL
            if count == REFUSALS_NOTED + 1:
                log.warning("%s is refused again and again", _address(request))
            if count > REFUSALS_ANSWERED:
                response = _refuse_often(visit)
        elif is_noted and response.status_code >= 400:
            count = self._faults.note(visit.principal.id, visit.at)
            is_noted = count <= FAULTS_NOTED
            if count == FAULTS_NOTED + 1:
                log.warning("calls of %r fail again and again", visit.principal.name)
        response.headers["x-ms-request-id"] = visit.request_id
        response.headers["x-ms-correlation-request-id"] = visit.request_id
        if visit.principal.id:
            response.headers["x-labctl-version"] = __version__  # for nobody else to know
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if wants_strict_transport(visit.base_url):
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        if is_noted:
            await run_in_threadpool(self._note, request, visit, response.status_code)
        self._desk.traffic.count(
            request.method, visit.route, response.status_code, perf_counter() - began
        )
        await response(scope, receive, send)
        await self._note_use(visit)

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
        path, headers = request.scope["path"], request.headers
        visit.base_url = find_base_url(request, headers)
        routes, parameters = self._routes.find(path)
        method = "GET" if request.method == "HEAD" else request.method
        # HEAD is GET without a body, but for those that answer it with a status of its own.
        route = visit.route = routes.get(request.method) or routes.get(method)
        is_open = bool(routes) and None in {each.scope for each in routes.values()}
        if (route is None and not is_open) or (route is not None and route.scope is not None):
            visit.principal = await self._let_in(headers, visit)
        if route is None:
            if not routes:
                raise _unknown(path)
            known = sorted({*routes, "OPTIONS", *({"HEAD"} if "GET" in routes else ())})
            if method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": ", ".join(known)})
            raise _wrong_method(request.method, known)
        if route.scope is not None and not visit.principal.scope.allows(route.scope):
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The token '{visit.principal.name}' has the scope '{visit.principal.scope}'; "
                f"{route.method} {path} needs '{route.scope}'.",
            )
        _check_subscription(self._desk, parameters)
        if route.needs_version:
            _check_version(request.query_params)
        key = (visit.base_url, path, request.scope["query_string"].decode("latin-1"))
        version = self._desk.version if route.is_kept else None
        if version is not None:
            kept = self._kept.find(key, version)
            if kept is not None:
                return kept.render()
        call = Call(
            method=method,
            path=path,
            parameters=parameters,
            query={name.lower(): value for name, value in request.query_params.items()},
            headers=dict(headers),
            content=b"" if route.stream else await read_body(request, route.limit),
            base_url=visit.base_url,
            principal=visit.principal,
            now=visit.at,
            request_id=visit.request_id,
        )
        if route.stream is not None:
            return await route.stream(self._desk, call, request)
        if route.handler is None:
            raise LookupError(f"nobody answers {route.method} {route.path}")
        if version is not None:
            return await self._make_once(route.handler, call, key, visit)
        answer = await run_in_threadpool(route.handler, self._desk, call)
        visit.who, visit.code = answer.who, answer.code
        return render(answer)

    async def _make_once(self, handler: Handler, call: Call, key: Key, visit: _Visit) -> Response:
        """Many who ask for the same at once wait for the first: its answer is theirs, too."""
        async with self._kept.turn(key):
            version = self._desk.version  # read in turn: what was made since may be taken
            kept = self._kept.find(key, version)
            if kept is None:
                answer = await run_in_threadpool(handler, self._desk, call)
                visit.who, visit.code = answer.who, answer.code
                if answer.status != 200:
                    return render(answer)
                kept = self._kept.keep(key, version, answer)
        return kept.render()

    async def _let_in(self, headers: Headers, visit: _Visit) -> Principal:
        given = headers.get("authorization")
        version = self._desk.database.find_version()
        known = self._kept.find_principal(given, version, visit.at)
        if known is not None:
            return known
        found = await run_in_threadpool(
            authenticate, self._desk, given, now=visit.at, base_url=visit.base_url
        )
        self._kept.keep_principal(given, version, visit.at, found)
        return found

    async def _note_use(self, visit: _Visit) -> None:
        """Write down that a token was used: behind the answer, and not for every one."""
        whose = visit.principal.id
        last = self._used.get(whose)
        if not whose or (last is not None and timedelta(0) <= visit.at - last < _USE):
            return
        self._used[whose] = visit.at

        def write() -> None:
            try:
                with self._desk.database.write() as connection:
                    note_use(connection, whose, now=visit.at)
            except LabError:
                log.exception("the use of a token could not be written down")

        await run_in_threadpool(write)

    def _note(self, request: Request, visit: _Visit, status: int) -> None:
        try:
            with self._desk.database.write() as connection:
                last = self._tidied_at
                if last is None or not timedelta(0) <= visit.at - last < _TIDY:
                    self._tidied_at = visit.at
                    remove_audit_entries(connection, before=visit.at - _AUDIT_LIFE)
                add_audit_entry(
                    connection,
                    at=visit.at,
                    who=visit.principal.name or visit.who,
                    address=_address(request)[:64],
                    method=request.method[:16],
                    path=_name_path(request),
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


def _name_path(request: Request) -> str:
    """The path, and what a handler has to say of what was asked for in the body."""
    note = request.scope.get("labctl.note", "")
    text = f"{request.scope['path']} {note}".rstrip()
    return text[:2000].encode("utf-8", "replace").decode()


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


def _refuse_often(visit: _Visit) -> Response:
    error = refuse_often()
    if visit.route is None or not visit.route.is_form:
        return _render_error(error)
    # Clients read errors of a login in another shape.
    body = {"error": "temporarily_unavailable", "error_description": error.message}
    return render(Answer(status=error.status, body=body, headers=error.headers))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


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


def _wrong_method(method: str, known: list[str]) -> ArmError:
    return ArmError(
        405,
        "MethodNotAllowed",
        f"{method} is not known here, but {', '.join(known)}.",
        headers={"Allow": ", ".join(known)},
    )


def _unknown(path: str) -> ArmError:
    return ArmError(
        404,
        "InvalidResourceType",
        f"Nothing in this lab answers to the path '{path[:500]}'. "
        "GET /labctl/v1/openapi.json lists what does.",
    )
