"""Calls the API's own routes as a client would: what a template does to its resources."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.failure import translate
from labctl.api.route import Route, Routes
from labctl.arm.errors import ArmError
from labctl.errors import LabError
from labctl.model.access import Principal

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Somebody who sends calls on behalf of a client, with that client's rights and no more."""

    desk: Desk
    routes: Routes
    principal: Principal
    base_url: str
    now: datetime
    request_id: str

    def find_route(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Who answers. Raises ArmError when nobody does, or when the client may not ask."""
        routes, parameters = self.routes.find(path)
        route = routes.get(method)
        if route is None or route.handler is None:
            kind = _tell_type(path)
            raise ArmError(
                400,
                "InvalidResourceType",
                f"The resource type '{kind}' of '{path[:500]}' could not be found: nothing in this "
                f"lab answers to {method} for it. Leave it out of the template, or give it a "
                "condition that is false.",
                target=path,
            )
        if route.scope is not None and not self.principal.scope.allows(route.scope):
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The token '{self.principal.name}' has the scope '{self.principal.scope}'; "
                f"{method} {path} needs '{route.scope}'.",
                target=path,
            )
        return route, parameters

    def send(
        self, method: str, path: str, *, api_version: str, body: Mapping[str, Json] | None = None
    ) -> Answer:
        """The answer. Raises ArmError for every refusal."""
        route, parameters = self.find_route(method, path)
        handler = route.handler
        if handler is None:
            raise LookupError(path)
        call = Call(
            method=method,
            path=path,
            parameters=parameters,
            query={"api-version": api_version},
            headers={},
            content=b"" if body is None else json.dumps(body, ensure_ascii=False).encode(),
            base_url=self.base_url,
            principal=self.principal,
            now=self.now,
            request_id=self.request_id,
        )
        try:
            return handler(self.desk, call)
        except LabError as error:
            raise translate(error) from error

    def read(self, identifier: str, *, api_version: str) -> dict[str, Json]:
        """The resource as it is now. Raises ArmError (404) when there is none."""
        answer = self.send("GET", identifier, api_version=api_version)
        body = json.loads(answer.body) if isinstance(answer.body, bytes) else answer.body
        if answer.status != 200 or not isinstance(body, dict):
            raise ArmError(404, "ResourceNotFound", f"'{identifier}' cannot be read.")
        return body

    def aside(self, desk: Desk) -> "Errand":
        """The same at another desk."""
        return replace(self, desk=desk)


def find_operation_id(answer: Answer) -> str | None:
    """The operation that an answer says to wait for."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    url = headers.get("azure-asyncoperation")
    if url is None:
        return None
    return urlsplit(url).path.rstrip("/").rpartition("/")[2] or None


def _tell_type(path: str) -> str:
    words = path.partition("/providers/")[2].split("/")
    return "/".join([words[0], *words[1::2]])[:200]
