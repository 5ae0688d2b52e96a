"""GET /labctl/v1/events: what happens, as server-sent events, until the client goes."""

import json
from collections.abc import AsyncIterator
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from labctl.api.auth import is_still_allowed
from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.route import Route
from labctl.arm.errors import ArmError, invalid
from labctl.model.event import Event

_MOST = 128  # clients at a time; each holds a connection, of which the server has 256
_HEARTBEAT = 15.0  # seconds; proxies and clients give up on what is silent for longer
_RETRY = 2000  # milliseconds that a client waits before it comes again
_HEADERS = {"X-Accel-Buffering": "no"}


async def stream_events(desk: Desk, call: Call, request: Request) -> Response:
    """Begin to tell; `Last-Event-ID` (of a client that comes again) goes before `after`."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=_HEADERS)
    if desk.newsroom.followers >= _MOST:
        raise ArmError(
            429,
            "TooManyRequests",
            f"{_MOST} clients follow the events already.",
            headers={"Retry-After": "5"},
        )
    scale_set = call.query.get("scaleset", "").lower()
    after = _read_place(call)
    await desk.newsroom.enter(desk.database, desk.stop)
    place = desk.newsroom.last if after is None else after
    return StreamingResponse(
        _Stream(desk, call, scale_set, place), media_type="text/event-stream", headers=_HEADERS
    )


class _Stream:
    """The events as text. Leaves the newsroom however it ends, even if it never began."""

    def __init__(self, desk: Desk, call: Call, scale_set: str, place: int) -> None:
        self._desk = desk
        self._call = call
        self._scale_set = scale_set
        self._place = place
        self._has_left = False

    def __del__(self) -> None:
        self._leave()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._tell()

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._desk.newsroom.leave()

    async def _tell(self) -> AsyncIterator[str]:
        desk, newsroom = self._desk, self._desk.newsroom
        desk.traffic.streams.inc()
        try:
            yield f"retry: {_RETRY}\n: events after {self._place}\n\n"
            asked_at = monotonic()
            while not desk.stop.is_set() and newsroom.is_open:
                if monotonic() - asked_at >= _HEARTBEAT:  # however much happens meanwhile
                    if not await is_still_allowed(desk, self._call):
                        return
                    asked_at = monotonic()
                found, reached = await newsroom.load(desk.database, self._place, self._wants)
                for event in found:
                    yield _render(event)
                if reached > self._place:
                    self._place = reached
                    continue
                await newsroom.wait(self._place, _HEARTBEAT)
                if newsroom.last <= self._place and not desk.stop.is_set():
                    if not await is_still_allowed(desk, self._call):
                        return
                    asked_at = monotonic()
                    yield ": heartbeat\n\n"
        finally:
            desk.traffic.streams.dec()
            self._leave()

    def _wants(self, event: Event) -> bool:
        return not self._scale_set or event.scale_set == self._scale_set


def _read_place(call: Call) -> int | None:
    for name, text in (
        ("Last-Event-ID", call.headers.get("last-event-id", "")),
        ("after", call.query.get("after", "")),
    ):
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise invalid(f"{name} '{text[:60]}' is not the id of an event.", target=name)
        return int(text)
    return None


def _render(event: Event) -> str:
    document = {
        "id": event.id,
        "at": event.at.isoformat().replace("+00:00", "Z"),
        "scaleSet": event.scale_set,
        "instance": event.instance,
        "upgrade": event.upgrade,
        "kind": event.kind.value,
        "topic": event.topic,
        "message": event.message,
        "detail": event.detail,
    }
    # One line: JSON has no line breaks of its own.
    return f"id: {event.id}\ndata: {json.dumps(document)}\n\n"


EVENTS = Route(
    method="GET",
    path="/labctl/v1/events",
    stream=stream_events,
    summary="Follow what happens, as server-sent events",
    needs_version=False,
    query={
        "scaleSet": "Only events of this scale set.",
        "after": "Begin behind the event with this id; 0 is the first ever. Default: with the "
        "next one. The header Last-Event-ID goes before it.",
    },
    response={"type": "string", "description": "Each event's data is a JSON object."},
    media_type="text/event-stream",
)
