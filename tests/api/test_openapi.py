import schemathesis

from labctl.api.openapi import make_document
from labctl.api.route import Route
from labctl.api.routes import make_routes
from labctl.model.access import Scope
from tests.api.serving import SUBSCRIPTION, Api


def test_the_document_is_valid_and_describes_every_route(api: Api):
    answer = api.ask("GET", "/labctl/v1/openapi.json", scope=Scope.READ, version=None)
    assert answer.status_code == 200
    document = answer.json()
    schemathesis.openapi.from_dict(document).validate()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == {(route.method, route.path) for route in make_routes().all}
    names = [each["operationId"] for item in document["paths"].values() for each in item.values()]
    assert len(names) == len(set(names))


def test_schemas_with_parts_of_their_own_share_them():
    part = {"type": "object", "properties": {"me": {"$ref": "#/$defs/Part"}}}
    other = {"type": "string"}
    routes = [
        Route(method="PUT", path=f"/{at}/{{name}}", summary=at, request=schema, response=schema)
        for at, schema in (
            ("a", {"$defs": {"Part": part}, "$ref": "#/$defs/Part"}),
            ("b", {"$defs": {"Part": other}, "$ref": "#/$defs/Part"}),
        )
    ]
    document = make_document(routes, SUBSCRIPTION)
    schemathesis.openapi.from_dict(document).validate()
    schemas = document["components"]["schemas"]
    assert set(schemas) == {"Error", "Part", "Part_"}
    assert schemas["Part"]["properties"]["me"] == {"$ref": "#/components/schemas/Part"}
    assert schemas["Part_"] == other
    used = document["paths"]["/b/{name}"]["put"]["requestBody"]["content"]["application/json"]
    assert used["schema"] == {"$ref": "#/components/schemas/Part_"}


def test_only_what_is_for_everybody_needs_no_token():
    document = make_document(make_routes().all, SUBSCRIPTION)
    free = {
        path
        for path, item in document["paths"].items()
        for each in item.values()
        if not each["security"]
    }
    assert {"/healthz", "/readyz"} <= free
    assert "/metrics" not in free
