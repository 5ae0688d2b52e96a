"""What is labctl's own beside Azure's API: is it alive, what does it count, what happens."""

import logging

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.event_stream import EVENTS
from labctl.api.metrics import LabCollector
from labctl.api.route import Route
from labctl.errors import LabError
from labctl.store.events import find_last_event_id

_SURVEY_AT_MOST = 30.0  # seconds; the daemon looks every five

log = logging.getLogger(__name__)


def answer_health(desk: Desk, call: Call) -> Answer:
    """The process answers; what it can do is another question."""
    del desk, call
    return Answer(body={"status": "ok"})


def answer_readiness(desk: Desk, call: Call) -> Answer:
    """503 with the reasons while no work would be done. Told to anybody, so without any name."""
    del call
    reasons = []
    try:
        with desk.database.read() as connection:
            find_last_event_id(connection)
    except LabError:
        log.exception("the store cannot be read")
        reasons.append("the store cannot be read")
    age = desk.board.survey_age
    if age is None:
        reasons.append("the daemon has not looked at the lab yet")
    elif age > _SURVEY_AT_MOST:
        reasons.append(f"the daemon has not looked at the lab for {age:.0f} s")
    if desk.stop.is_set():
        reasons.append("the daemon is stopping")
    if reasons:
        return Answer(status=503, body={"status": "not ready", "reasons": reasons})
    return Answer(body={"status": "ready"})


def answer_metrics(desk: Desk, call: Call) -> Answer:
    """In the text format of Prometheus."""
    del call
    registry = CollectorRegistry()
    registry.register(LabCollector(desk))
    content = generate_latest(registry) + generate_latest(desk.traffic.registry)
    return Answer(body=content, headers={"Content-Type": CONTENT_TYPE_LATEST})


_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/healthz",
        handler=answer_health,
        scope=None,
        summary="Tell whether the process answers",
        needs_version=False,
        response=_STATUS,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=answer_readiness,
        scope=None,
        summary="Tell whether the store can be read and the daemon works",
        needs_version=False,
        response={
            **_STATUS,
            "properties": {
                "status": {"type": "string", "enum": ["ready", "not ready"]},
                "reasons": {"type": "array", "items": {"type": "string"}},
            },
        },
        statuses=(200, 503),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=answer_metrics,
        summary="The state of the lab and of the API, for Prometheus",
        needs_version=False,
        response={"type": "string"},
        media_type="text/plain",
    ),
    EVENTS,
)
