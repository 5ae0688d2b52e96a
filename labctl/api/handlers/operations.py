"""Long-running operations: how they go, and in the other shape what they were for."""

from dataclasses import replace

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.respond import RETRY_AFTER
from labctl.api.route import Handler, Route, Routes
from labctl.arm.errors import ArmError, Document
from labctl.arm.statuses import format_moment
from labctl.store.operations import Operation, OperationStatus, find_operation

_WITHOUT_RESULT = frozenset({"POST", "DELETE"})  # `method` in the goal of an operation
_MOST_REASONS = 10
_PATH = "/subscriptions/{subscription}/providers/{namespace}/locations/{location}/operations"


def make_operation_routes(resources: Routes) -> tuple[Route, ...]:
    """The routes; `resources` answer what an operation on one of them has made of it."""

    def answer(desk: Desk, call: Call) -> Answer:
        with desk.database.read() as connection:
            operation = find_operation(connection, call.parameters["operation"])
        if operation is None:
            raise ArmError(
                404,
                "OperationNotFound",
                f"The operation '{call.parameters['operation'][:60]}' was not found; operations "
                "that ended are forgotten after a week.",
            )
        if call.query.get("monitor", "").lower() == "true":
            return _answer_monitor(desk, call, operation, resources)
        headers = {"Retry-After": str(RETRY_AFTER)} if operation.is_open else {}
        body = render_operation(call, operation)
        reasons = _find_reasons(desk, operation) if operation.is_open else []
        if reasons:
            body["labctl"] = {"waitsFor": reasons}
        return Answer(body=body, headers=headers)

    return (
        Route(
            method="GET",
            path=f"{_PATH}/{{operation}}",
            handler=answer,
            summary="Tell how a long-running operation goes; with monitor=true 202 while it runs, "
            "then what it was for",
            query={"monitor": "true: answer 202 while it runs, then with the resource"},
            response=_RESPONSE,
            statuses=(200, 202, 204),
        ),
    )


def render_operation(call: Call, operation: Operation) -> Document:
    """The body that Azure-AsyncOperation leads to."""
    found: Document = {
        "id": call.path,
        "name": operation.id,
        "status": operation.status.value,
        "startTime": format_moment(operation.started_at),
    }
    if operation.ended_at is not None:
        found["endTime"] = format_moment(operation.ended_at)
    if operation.error is not None:
        found["error"] = operation.error
    if operation.result is not None:
        found["properties"] = {"output": operation.result}
    return found


def _find_reasons(desk: Desk, operation: Operation) -> list[str]:
    """What keeps an open operation from its end, as far as its scale set tells."""
    sight = None if operation.scale_set is None else desk.board.find(operation.scale_set)
    holds = () if sight is None else sight.plan.holds
    return [f"{hold.subject}: {hold.reason}" for hold in holds[:_MOST_REASONS]]


def _answer_monitor(desk: Desk, call: Call, operation: Operation, resources: Routes) -> Answer:
    if operation.is_open:
        # The link is this one again: clients go on asking where they asked.
        return Answer(status=202, headers={"Retry-After": str(RETRY_AFTER)})
    if operation.status is not OperationStatus.SUCCEEDED:
        error = operation.error or {}
        default = "Canceled" if operation.status is OperationStatus.CANCELED else "OperationFailed"
        body = {"code": default, "message": f"The operation {operation.id} did not succeed."}
        return Answer(status=409, body={"error": body | error})
    if operation.goal.get("method") in _WITHOUT_RESULT:
        return Answer(status=204)
    found = _find_handler(resources, operation.resource)
    if found is None:
        return Answer(status=204)
    handler, parameters = found
    version = {"api-version": call.api_version}
    wanted = replace(
        call,
        method="GET",
        path=operation.resource,
        parameters=parameters,
        query=version,
        headers={},
        content=b"",
    )
    try:
        answer = handler(desk, wanted)
    except ArmError as error:
        if error.status == 404:  # deleted since
            return Answer(status=204)
        raise
    return Answer(status=200, body=answer.body, headers=answer.headers)


def _find_handler(resources: Routes, path: str) -> tuple[Handler, dict[str, str]] | None:
    routes, parameters = resources.find(path)
    route = routes.get("GET")
    return None if route is None or route.handler is None else (route.handler, parameters)


_RESPONSE = {
    "type": "object",
    "required": ["name", "status", "startTime"],
    "properties": {
        "name": {"type": "string"},
        "status": {"enum": [each.value for each in OperationStatus]},
        "startTime": {"type": "string", "format": "date-time"},
        "endTime": {"type": "string", "format": "date-time"},
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "array"},
            },
        },
        "labctl": {
            "type": "object",
            "properties": {"waitsFor": {"type": "array", "items": {"type": "string"}}},
        },
    },
}
