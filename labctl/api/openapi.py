"""The OpenAPI document of the API, made from its routes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labctl import __version__
from labctl.api.call import Answer, Call
from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.api.respond import dump
from labctl.api.route import Route, Routes

Json = Any  # what json.loads gives

_VERSION_PATTERN = r"^\d{4}-\d{2}-\d{2}(-[a-z][a-z0-9.-]{0,30})?$"
_CHANGING = frozenset({"PUT", "PATCH", "POST", "DELETE"})
_CONDITIONAL = frozenset({"PUT", "PATCH", "DELETE"})
_STATUS_TEXTS = {
    200: "Done.",
    201: "It is new, or is being made.",
    202: "It has begun; ask at Azure-AsyncOperation or Location how it goes.",
    204: "Done; or there was nothing to do.",
    302: "To be found elsewhere.",
    400: "Something in the request is wrong.",
    401: "The bearer token is missing, wrong, expired or revoked.",
    403: "The token's scope is not enough.",
    404: "There is no such resource.",
    405: "The path has no such method.",
    409: "Right in itself, but not in the present state.",
    412: "A condition (If-Match, If-None-Match) was not met.",
    413: "The body is too large.",
    429: "Too many at a time; try again later.",
    503: "Not ready.",
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "target": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["code", "message"],
                        "properties": {
                            "code": {"type": "string"},
                            "message": {"type": "string"},
                            "target": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}
_LOGIN_ERROR: Json = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
_ACCEPTED_HEADERS: Json = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in (
        ("Azure-AsyncOperation", "Tells the status of the operation."),
        ("Location", "Answers with 202 until the operation is over."),
        ("Retry-After", "Seconds until it makes sense to ask."),
    )
}


def with_document(routes: Iterable[Route]) -> Routes:
    """The routes, and one more that describes them all."""
    given = tuple(routes)
    kept: dict[str, bytes] = {}

    def answer(desk: Desk, call: Call) -> Answer:
        """One document for the life of the server."""
        del call
        if desk.subscription_id not in kept:
            kept[desk.subscription_id] = dump(make_document(every, desk.subscription_id))
        return Answer(body=kept[desk.subscription_id], headers={"Content-Type": "application/json"})

    itself = Route(
        method="GET",
        path="/labctl/v1/openapi.json",
        handler=answer,
        summary="This document",
        needs_version=False,
        response={"type": "object", "required": ["openapi"]},
    )
    every = (*given, itself)
    return Routes(every)


def make_document(routes: Iterable[Route], subscription: str) -> dict[str, Json]:
    """OpenAPI 3.1; `subscription` is the one that the lab has."""
    schemas: dict[str, Json] = {"Error": _ERROR}
    paths: dict[str, Json] = {}
    names: set[str] = set()
    for route in routes:
        path = "/" + route.path.strip("/")
        operation = _describe(route, schemas, subscription)
        name = _name(route)
        while name in names:
            name += "2"
        names.add(name)
        paths.setdefault(path, {})[route.method.lower()] = {"operationId": name, **operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "labctl",
            "version": __version__,
            "description": "Scale sets of real virtual machines, by the calls of Azure Resource "
            "Manager and a few of labctl's own.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    }


def _describe(route: Route, schemas: dict[str, Json], subscription: str) -> dict[str, Json]:
    operation: dict[str, Json] = {
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": _list_parameters(route, subscription),
        "responses": _list_responses(route, schemas),
        "security": [] if route.scope is None else [{"bearer": []}],
        "x-labctl-scope": None if route.scope is None else route.scope.value,
    }
    if route.request is not None:
        kind = "application/x-www-form-urlencoded" if route.is_form else route.request_type
        operation["requestBody"] = {
            "required": route.is_form or route.method != "POST",
            "content": {kind: {"schema": _adopt(route.request, schemas)}},
        }
    return operation


def _list_parameters(route: Route, subscription: str) -> list[Json]:
    found: list[Json] = []
    for name in re.findall(r"\{([^}]+)\}", route.path):
        schema: Json = {"type": "string", "minLength": 1, "pattern": r"^[^/]+$"}
        if name.lower() in {"subscription", "subscriptionid"}:
            schema = {"type": "string", "examples": [subscription]}
        elif name.lower() in {"group", "resourcegroup", "resourcegroupname"}:
            schema["examples"] = [DEFAULT_GROUP]
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.needs_version:
        found.append(
            {
                "name": "api-version",
                "in": "query",
                "required": True,
                "schema": {
                    "type": "string",
                    "pattern": _VERSION_PATTERN,
                    "examples": ["2024-11-01"],
                },
                "description": "Any well-formed one.",
            }
        )
    found += [
        {"name": key, "in": "query", "schema": {"type": "string"}, "description": text}
        for key, text in route.query.items()
        if key.lower() != "api-version"
    ]
    if route.needs_version and route.method in _CONDITIONAL:
        found += [
            {"name": name, "in": "header", "schema": {"type": "string"}, "description": text}
            for name, text in (
                ("If-Match", "Only if the resource has this ETag."),
                ("If-None-Match", "* : only if there is no such resource yet."),
            )
        ]
    return found


def _list_responses(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    answer: Json = {} if route.response is None else _adopt(route.response, schemas)
    found: dict[str, Json] = {}
    for status in route.statuses:
        response: dict[str, Json] = {"description": _STATUS_TEXTS.get(status, "Answered.")}
        if status not in {202, 204, 302}:
            response["content"] = {route.media_type: {"schema": answer}}
        if status in {201, 202}:
            response["headers"] = _ACCEPTED_HEADERS
        if status == 202 and route.response is not None:
            response["content"] = {route.media_type: {"schema": answer}}
        found[str(status)] = response
    errors = [400, 404, 405, 429]
    errors += [] if route.scope is None else [401, 403]
    errors += [409, 412, 413] if route.method in _CHANGING else []
    for status in sorted(errors):
        found.setdefault(str(status), _error(_STATUS_TEXTS[status]))
    if route.is_form:
        schemas["LoginError"] = _LOGIN_ERROR
        found |= {str(status): _refuse_login(_STATUS_TEXTS[status]) for status in (400, 401, 429)}
    found["default"] = _error("Any other failure.")
    if route.method == "HEAD":  # answers without a body, failures, too
        found = {
            status: {key: each for key, each in response.items() if key != "content"}
            for status, response in found.items()
        }
    return found


def _error(text: str) -> dict[str, Json]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _refuse_login(text: str) -> Json:
    """In OAuth2's shape, unless it was refused before anybody knew that it is a login."""
    kinds = [{"$ref": f"#/components/schemas/{name}"} for name in ("LoginError", "Error")]
    return {"description": text, "content": {"application/json": {"schema": {"anyOf": kinds}}}}


def _adopt(schema: Mapping[str, Json], schemas: dict[str, Json]) -> Json:
    """Move what a schema defines for itself to the components, where references find it."""
    parts = schema.get("$defs", {})
    names: dict[str, str] = {}
    for name, part in parts.items():
        chosen = name
        while chosen in schemas and schemas[chosen] != _refer(part, names | {name: chosen}):
            chosen += "_"
        names[name] = chosen
        schemas.setdefault(chosen, None)
    for name, part in parts.items():
        schemas[names[name]] = _refer(part, names)
    return _refer({key: value for key, value in schema.items() if key != "$defs"}, names)


def _refer(value: Json, names: Mapping[str, str]) -> Json:
    if isinstance(value, Mapping):
        found = {key: _refer(each, names) for key, each in value.items()}
        target = found.get("$ref")
        if isinstance(target, str) and target.startswith("#/$defs/"):
            name = target.removeprefix("#/$defs/")
            found["$ref"] = f"#/components/schemas/{names.get(name, name)}"
        return found
    if isinstance(value, list | tuple):
        return [_refer(each, names) for each in value]
    return value


def _tag(route: Route) -> str:
    """The provider that it belongs to."""
    found = re.search(r"/providers/(Microsoft\.\w+)", route.path)
    return found[1] if found else "labctl" if not route.needs_version else "Microsoft.Resources"


def _name(route: Route) -> str:
    words = [route.method.lower()]
    for segment in route.path.strip("/").split("/"):
        prefix = "By" if segment.startswith("{") else ""
        words += [
            prefix + word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", segment)
        ]
    return "".join(words)
