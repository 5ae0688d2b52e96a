"""The one subscription and tenant that a lab is, its regions, and its resource providers."""

from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.regions import load_regions, make_location, refuse_unknown_namespace
from labctl.api.respond import answer_page
from labctl.api.route import Route
from labctl.arm.providers import PROVIDERS, Provider, find_provider
from labctl.model.access import Scope

Json = Any  # what json.loads gives

_NAME = "labctl"
_OBJECT = {"type": "object"}
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "items": _OBJECT}, "nextLink": {"type": "string"}},
}


def list_subscriptions(desk: Desk, call: Call) -> Answer:
    """Just one."""
    return answer_page(call, [_render_subscription(desk)])


def get_subscription(desk: Desk, call: Call) -> Answer:  # noqa: ARG001 - checked already
    """The one there is."""
    return Answer(body=_render_subscription(desk))


def list_tenants(desk: Desk, call: Call) -> Answer:
    """Just one."""
    tenant = {
        "id": f"/tenants/{desk.tenant_id}",
        "tenantId": desk.tenant_id,
        "displayName": _NAME,
        "defaultDomain": _NAME,
        "domains": [_NAME],
        "tenantCategory": "Home",
        "tenantType": "AAD",
    }
    return answer_page(call, [tenant])


def list_locations(desk: Desk, call: Call) -> Answer:
    """The regions that something is said to be in."""
    with desk.database.read() as connection:
        regions = load_regions(connection)
    return answer_page(call, regions, render=lambda region: make_location(desk, region))


def list_providers(desk: Desk, call: Call) -> Answer:
    """All providers; all are registered."""
    regions = _load_regions(desk)
    return answer_page(
        call, PROVIDERS, render=lambda provider: _render_provider(desk, provider, regions)
    )


def get_provider(desk: Desk, call: Call) -> Answer:
    """One provider with its types; also the answer to those who want to register it."""
    provider = find_provider(call.parameters["namespace"])
    if provider is None:
        raise refuse_unknown_namespace(call.parameters["namespace"])
    return Answer(body=_render_provider(desk, provider, _load_regions(desk)))


def _load_regions(desk: Desk) -> list[str]:
    with desk.database.read() as connection:
        return load_regions(connection)


def _render_subscription(desk: Desk) -> Json:
    return {
        "id": f"/subscriptions/{desk.subscription_id}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": desk.subscription_id,
        "tenantId": desk.tenant_id,
        "displayName": _NAME,
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Internal_2014-09-01",
            "quotaId": "Internal_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def _render_provider(desk: Desk, provider: Provider, regions: list[str]) -> Json:
    return {
        "id": f"/subscriptions/{desk.subscription_id}/providers/{provider.namespace}",
        "namespace": provider.namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationFree",
        "resourceTypes": [
            {
                "resourceType": each.name,
                "locations": regions if each.is_tracked else [],
                "apiVersions": list(each.api_versions),
                "defaultApiVersion": each.api_versions[0],
                "capabilities": "SupportsTags, SupportsLocation" if each.is_tracked else "None",
            }
            for each in provider.types
        ],
    }


_SUBSCRIPTION = "/subscriptions/{subscription}"

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/subscriptions",
        handler=list_subscriptions,
        summary="List the subscriptions: a lab is one",
        response=_LIST,
    ),
    Route(
        method="GET",
        path=_SUBSCRIPTION,
        handler=get_subscription,
        summary="Show the subscription",
        response=_OBJECT,
    ),
    Route(
        method="GET",
        path="/tenants",
        handler=list_tenants,
        summary="List the tenants: a lab has one",
        response=_LIST,
    ),
    Route(
        method="GET",
        path=f"{_SUBSCRIPTION}/locations",
        handler=list_locations,
        summary="List the regions in use",
        is_kept=True,
        response=_LIST,
    ),
    Route(
        method="GET",
        path=f"{_SUBSCRIPTION}/providers",
        handler=list_providers,
        summary="List the resource providers",
        is_kept=True,
        query={"$expand": "not needed: types are always shown"},
        response=_LIST,
    ),
    Route(
        method="GET",
        path=f"{_SUBSCRIPTION}/providers/{{namespace}}",
        handler=get_provider,
        summary="Show a resource provider with its types",
        is_kept=True,
        response=_OBJECT,
    ),
    Route(
        method="POST",
        path=f"{_SUBSCRIPTION}/providers/{{namespace}}/register",
        handler=get_provider,
        scope=Scope.OPERATE,
        summary="Register a resource provider: all are, so nothing changes",
        response=_OBJECT,
    ),
)
