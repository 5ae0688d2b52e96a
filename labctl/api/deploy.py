"""Takes a deployment further: what is ready is PUT, what is under way is waited for."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection

from labctl.api.deployments import ACTIVE, find_active, load_wish
from labctl.api.desk import Desk
from labctl.api.errand import Errand, find_operation_id
from labctl.api.route import Routes
from labctl.arm.errors import ArmError
from labctl.arm.template import Template
from labctl.arm.template_resources import PlannedResource
from labctl.controller.clock import now as read_clock
from labctl.controller.operations import Ending, Step
from labctl.errors import HostError
from labctl.model.access import Principal
from labctl.store.arm_resources import ArmResource, find_resource, save_resource
from labctl.store.operations import Operation, OperationStatus, change_goal, find_operation
from labctl.store.tokens import is_revoked

Json = Any  # what json.loads gives

AT_ONCE = 20  # resources that are PUT before others have a turn
WAITING, RUNNING, SUCCEEDED, FAILED = "Waiting", "Running", "Succeeded", "Failed"
_MESSAGE = (
    "At least one resource deployment operation failed. Please list deployment operations for "
    "details."
)

log = logging.getLogger(__name__)


def begin(template: Template) -> list[dict[str, Json]]:
    """What is kept of each resource while it is deployed, in the order of deployment."""
    return [
        {
            "id": each.id,
            "type": each.type,
            "name": each.name,
            "apiVersion": each.api_version,
            "needs": sorted(each.needs),
            "state": WAITING,
        }
        for each in template.resources
        if each.is_wanted
    ]


def make_deployment_step(desk: Desk, routes: Routes, clock: Callable[[], datetime]) -> Step:
    """The step for operations of the kind `deployment`."""

    def step(operation: Operation) -> Ending | None:
        with desk.database.read() as connection:
            row = find_resource(connection, operation.resource)
        if row is None or row.document["operation"] != operation.id:
            _forget(desk, operation)
            return Ending(is_canceled=True)  # deleted, with its group for example
        properties = row.document["properties"]
        if properties["provisioningState"] not in ACTIVE:
            _forget(desk, operation)
            is_canceled = properties["provisioningState"] == "Canceled"
            return Ending(error=properties.get("error"), is_canceled=is_canceled)
        deployment = _Deployment(desk, routes, operation, row, clock())
        try:
            return deployment.go_on()
        except HostError:  # a disk that is full, say; an end could not be written down either
            log.exception("the deployment %s is tried again", row.name)
            return None
        except Exception as error:
            log.exception("internal error in the deployment %s", row.name)
            return deployment.give_up(error)

    return step


def make_step(desk: Desk, routes: Routes) -> Step:
    """The same by the clock of the lab."""
    return make_deployment_step(desk, routes, read_clock)


class _Deployment:
    """One look at one deployment."""

    def __init__(
        self, desk: Desk, routes: Routes, operation: Operation, row: ArmResource, now: datetime
    ) -> None:
        self._desk = desk
        self._routes = routes
        self._operation = operation
        self._row = row
        self._now = now
        self._resources: list[dict[str, Json]] = row.document["resources"]
        self._has_changed = False

    def go_on(self) -> Ending | None:
        """Do what is next. None: something is still to come."""
        self._look_at_running()
        is_failed = any(each["state"] == FAILED for each in self._resources)
        ready = [] if is_failed else self._find_ready()
        try:
            if ready:
                wish = load_wish(self._desk, self._operation.goal)
                self._require_unrevoked(wish.principal)
                errand = wish.make_errand(self._desk, self._routes, self._now)
                self._put_all(ready[:AT_ONCE], wish.read(), errand)
            states = {each["state"] for each in self._resources}
            if RUNNING in states or (WAITING in states and FAILED not in states):
                self._save("Running")
                return None
            if FAILED in states:
                details = [each["error"] for each in self._resources if each["state"] == FAILED]
                return self._fail("DeploymentFailed", _MESSAGE, details)
            return self._succeed()
        except ArmError as error:  # of the template itself, and not of one resource
            return self._fail("DeploymentFailed", _MESSAGE, [error.document])

    def _require_unrevoked(self, principal: Principal) -> None:
        with self._desk.database.read() as connection:
            if not is_revoked(connection, principal.id):
                return
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The token '{principal.name}', which asked for the deployment, was revoked meanwhile; "
            "what had begun is kept. Deploy the template again with another token.",
        )

    def give_up(self, error: Exception) -> Ending | None:
        """End it for a reason that nobody has foreseen."""
        text = f"An internal error, which is a fault of labctl: {type(error).__name__}."
        return self._fail("InternalServerError", text, [])

    def _look_at_running(self) -> None:
        with self._desk.database.read() as connection:
            for each in self._resources:
                if each["state"] != RUNNING:
                    continue
                operation = find_operation(connection, each["operation"])
                if operation is None:
                    each["state"] = WAITING  # forgotten; asking again does no harm
                elif operation.status is OperationStatus.SUCCEEDED:
                    self._end(each, SUCCEEDED)
                elif not operation.is_open:
                    reason = operation.error or {
                        "code": "ResourceDeploymentFailure",
                        "message": f"The operation on the resource ended as {operation.status}.",
                    }
                    self._end(each, FAILED, error=reason)
                else:
                    continue
                self._has_changed = True

    def _find_ready(self) -> list[str]:
        open_keys = {each["id"].lower() for each in self._resources if each["state"] != SUCCEEDED}
        return [
            each["id"].lower()
            for each in self._resources
            if each["state"] == WAITING and open_keys.isdisjoint(each["needs"])
        ]

    def _put_all(self, keys: list[str], template: Template, errand: Errand) -> None:
        planned = {each.key: each for each in template.resources}
        for each in self._resources:
            key = each["id"].lower()
            if key in keys:
                if not self._is_wanted():
                    return  # canceled, or deleted with its group, while others were PUT
                each.setdefault("startedAt", self._now.isoformat())
                self._put(each, planned[key], template, errand)
                self._has_changed = True

    def _is_wanted(self) -> bool:
        with self._desk.database.read() as connection:
            row = find_resource(connection, self._row.id)
        return row is not None and self._is_under_way(row)

    def _is_under_way(self, row: ArmResource) -> bool:
        is_ours = row.document["operation"] == self._operation.id
        return is_ours and row.document["properties"]["provisioningState"] in ACTIVE

    def _put(
        self,
        each: dict[str, Json],
        resource: PlannedResource,
        template: Template,
        errand: Errand,
    ) -> None:
        version = resource.api_version
        # Always the same for the same resource, so that a deployment that this one has begun is
        # known again after a crash.
        request_id = str(uuid5(UUID(errand.request_id), resource.key))
        errand = replace(errand, request_id=request_id)
        try:
            body = template.make_body(
                resource, lambda identifier: errand.read(identifier, api_version=version)
            )
            answer = errand.send("PUT", resource.id, api_version=version, body=body)
        except ArmError as error:
            begun = self._find_begun(resource, request_id)
            if begun is not None:
                each.update(state=RUNNING, operation=begun)
            else:
                self._end(each, FAILED, error=error.document)
            return
        except Exception as error:
            log.exception("internal error while %s was deployed", resource.id)
            text = f"An internal error, which is a fault of labctl: {type(error).__name__}."
            self._end(each, FAILED, error={"code": "InternalServerError", "message": text})
            return
        operation = find_operation_id(answer)
        if operation is None:
            self._end(each, SUCCEEDED)
            return
        with self._desk.database.read() as connection:
            is_known = find_operation(connection, operation) is not None
        if is_known:
            each.update(state=RUNNING, operation=operation)
        else:
            self._end(each, SUCCEEDED)

    def _find_begun(self, resource: PlannedResource, request_id: str) -> str | None:
        """The operation of a template in a template that was begun before a crash."""
        if not resource.is_deployment:
            return None
        with self._desk.database.read() as connection:
            row = find_resource(connection, resource.id)
            operation = find_active(connection, row)
        if row is None or row.document["properties"]["correlationId"] != request_id:
            return None
        return None if operation is None else operation.id

    def _end(self, each: dict[str, Json], state: str, *, error: Json = None) -> None:
        each.update(state=state, endedAt=self._now.isoformat())
        if error is not None:
            each["error"] = {**error, "target": error.get("target") or each["id"]}

    def _succeed(self) -> Ending | None:
        wish = load_wish(self._desk, self._operation.goal)
        errand = wish.make_errand(self._desk, self._routes, self._now)
        template = wish.read()

        def find(identifier: str) -> dict[str, Json]:
            return errand.read(identifier, api_version=wish.api_version)

        try:
            outputs = template.make_outputs(find)
        except ArmError as error:
            text = "The outputs of the template could not be worked out."
            return self._fail("DeploymentOutputEvaluationFailed", text, [error.document])
        found = [{"id": each["id"]} for each in self._resources]
        if not self._save("Succeeded", outputs=outputs, outputResources=found):
            return None  # it was canceled meanwhile; the next look tells
        return Ending()

    def _fail(self, code: str, message: str, details: list[Json]) -> Ending | None:
        error = {"code": code, "message": message, "details": details}
        return Ending(error=error) if self._save("Failed", error=error) else None

    def _save(self, state: str, **further: Json) -> bool:
        """Write down how far it has come, unless somebody has ended it meanwhile."""
        before = self._row.document["properties"]
        if not self._has_changed and state == before["provisioningState"]:
            return True
        with self._desk.database.write() as connection:
            row = find_resource(connection, self._row.id)
            if row is None or row.document["operation"] != self._operation.id:
                return False
            if not self._is_under_way(row):  # canceled; what had begun by then is told
                document = {**row.document, "resources": self._resources}
                save_document(connection, row, document, self._now)
                return False
            properties = {
                **row.document["properties"],
                **further,
                "provisioningState": state,
                "timestamp": self._now.isoformat(),
                "duration": tell_duration(self._now - self._operation.started_at),
            }
            save_document(
                connection,
                row,
                {**row.document, "properties": properties, "resources": self._resources},
                self._now,
            )
            if state not in ACTIVE:
                change_goal(connection, self._operation.id, {})  # parameters may be secret
        return True


def save_document(
    connection: Connection, row: ArmResource, document: dict[str, Json], now: datetime
) -> None:
    """Write a deployment."""
    save_resource(
        connection,
        row.id,
        type=row.type,
        group=row.group,
        name=row.name,
        document=document,
        now=now,
    )


def tell_duration(duration: timedelta) -> str:
    """As clients read it: PT61.5S."""
    return f"PT{max(duration, timedelta(0)).total_seconds():.3f}S"


def _forget(desk: Desk, operation: Operation) -> None:
    if operation.goal:
        with desk.database.write() as connection:
            change_goal(connection, operation.id, {})
