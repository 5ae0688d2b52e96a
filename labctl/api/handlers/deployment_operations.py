"""What a deployment has done, resource by resource, and how it goes."""

import hashlib
from datetime import datetime
from functools import partial
from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.deployments import DEPLOYMENT_TYPE, get_called
from labctl.api.desk import Desk
from labctl.api.query import cut
from labctl.api.respond import RETRY_AFTER, answer_page
from labctl.api.route import Route
from labctl.arm.errors import ArmError
from labctl.store.arm_resources import ArmResource
from labctl.store.operations import Operation, find_operation

Json = Any  # what json.loads gives


def list_operations(desk: Desk, call: Call) -> Answer:
    """What was done, resource by resource."""
    with desk.database.read() as connection:
        row = get_called(connection, desk, call)
    begun = [each for each in row.document["resources"] if "startedAt" in each]
    return answer_page(call, cut(call, begun), render=partial(_render_operation, row))


def get_operation(desk: Desk, call: Call) -> Answer:
    """What was done with one resource."""
    with desk.database.read() as connection:
        row = get_called(connection, desk, call)
    wanted = call.parameters["operation"].upper()
    for each in row.document["resources"]:
        if "startedAt" in each and _make_operation_id(each) == wanted:
            return Answer(body=_render_operation(row, each))
    raise _no_operation(wanted)


def get_status(desk: Desk, call: Call) -> Answer:
    """How it goes: what `Azure-AsyncOperation` names."""
    with desk.database.read() as connection:
        row = get_called(connection, desk, call)
        operation = find_operation(connection, call.parameters["operation"])
    if operation is None or operation.resource.lower() != row.key:
        raise _no_operation(call.parameters["operation"])
    headers = {"Retry-After": str(RETRY_AFTER)} if operation.is_open else {}
    return Answer(body=_render_status(row, operation), headers=headers)


def _render_status(row: ArmResource, operation: Operation) -> Json:
    ended = operation.ended_at
    return {
        "id": f"{row.id}/operationStatuses/{operation.id}",
        "name": operation.id,
        "status": operation.status.value if not operation.is_open else "Running",
        "startTime": operation.started_at.isoformat(),
        **({} if ended is None else {"endTime": ended.isoformat()}),
        **({} if operation.error is None else {"error": operation.error}),
    }


def _render_operation(row: ArmResource, each: dict[str, Json]) -> Json:
    identifier = _make_operation_id(each)
    error = each.get("error")
    ended = str(each.get("endedAt", each["startedAt"]))
    return {
        "id": f"{row.id}/operations/{identifier}",
        "operationId": identifier,
        "properties": {
            "provisioningOperation": "Create",
            "provisioningState": each["state"],
            "timestamp": ended,
            "duration": _tell_span(each["startedAt"], ended),
            "trackingId": each.get("operation", identifier),
            "statusCode": "OK" if error is None else error["code"],
            **({} if error is None else {"statusMessage": {"status": "Failed", "error": error}}),
            "targetResource": {
                "id": each["id"],
                "resourceType": each["type"],
                "resourceName": each["name"],
            },
        },
    }


def _tell_span(begun: str, ended: str) -> str:
    span = datetime.fromisoformat(ended) - datetime.fromisoformat(begun)
    return f"PT{max(span.total_seconds(), 0):.3f}S"


def _make_operation_id(each: dict[str, Json]) -> str:
    return hashlib.sha256(each["id"].lower().encode()).hexdigest()[:16].upper()


def _no_operation(identifier: str) -> ArmError:
    return ArmError(
        404,
        "DeploymentOperationNotFound",
        f"The deployment has no operation '{identifier[:60]}'.",
    )


_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_ONE = f"{_GROUP}/providers/{DEPLOYMENT_TYPE}/{{name}}"
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "items": {"type": "object"}}},
}
_OBJECT = {"type": "object"}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{_ONE}/operationStatuses/{{operation}}",
        handler=get_status,
        summary="How a deployment goes",
        response=_OBJECT,
    ),
    *(
        route
        for base in (_ONE, f"{_GROUP}/deployments/{{name}}")  # az asks in the short form
        for route in (
            Route(
                method="GET",
                path=f"{base}/operations",
                handler=list_operations,
                summary="What a deployment has done, resource by resource",
                query={"$top": "how many"},
                response=_LIST,
            ),
            Route(
                method="GET",
                path=f"{base}/operations/{{operation}}",
                handler=get_operation,
                summary="What a deployment has done with one resource",
                response=_OBJECT,
            ),
        )
    ),
)
