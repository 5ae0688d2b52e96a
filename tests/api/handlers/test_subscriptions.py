from uuid import UUID

from labctl.model.access import Scope
from tests.api.lab_parts import add_set, make_group
from tests.api.serving import SUBSCRIPTION, TENANT, Api


def test_a_lab_is_one_subscription_of_one_tenant(api: Api):
    for version in ("2022-12-01", "2019-11-01"):
        answer = api.ask("GET", "/subscriptions", version=version, scope=Scope.READ)
        (found,) = answer.json()["value"]
        assert found["id"] == f"/subscriptions/{SUBSCRIPTION}"
        assert (found["subscriptionId"], found["tenantId"]) == (SUBSCRIPTION, TENANT)
        assert found["state"] == "Enabled"
    assert api.ask("GET", f"/SUBSCRIPTIONS/{SUBSCRIPTION.upper()}").json() == found
    (tenant,) = api.ask("GET", "/tenants").json()["value"]
    assert tenant["tenantId"] == TENANT


def test_another_subscription_is_not_found_wherever_it_is_named(api: Api):
    other = f"/subscriptions/{UUID(int=9)}"
    for path in (other, f"{other}/locations", f"{other}/resourceGroups/labctl", "/subscriptions/x"):
        answer = api.ask("GET", path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "SubscriptionNotFound"
    answer = api.ask("PUT", f"{other}/resourceGroups/rg1", body={"location": "local"})
    assert answer.json()["error"]["code"] == "SubscriptionNotFound"


def test_locations_are_the_regions_in_use(api: Api):
    make_group(api, location="West Europe")
    add_set(api, "web", region="attic")
    found = api.ask("GET", "locations").json()["value"]
    assert [each["name"] for each in found] == ["local", "attic", "westeurope"]
    assert found[1]["id"] == f"/subscriptions/{SUBSCRIPTION}/locations/attic"


def test_providers_are_registered_and_know_their_types(api: Api):
    namespaces = [each["namespace"] for each in api.ask("GET", "providers").json()["value"]]
    assert namespaces == ["Microsoft.Compute", "Microsoft.Network", "Microsoft.Resources"]
    found = api.ask("GET", "providers/microsoft.compute").json()
    assert found["registrationState"] == "Registered"
    types = {each["resourceType"]: each for each in found["resourceTypes"]}
    assert "2024-11-01" in types["virtualMachineScaleSets"]["apiVersions"]
    assert types["virtualMachineScaleSets"]["locations"] == ["local"]
    assert api.ask("POST", "providers/Microsoft.Network/register").status_code == 200
    unknown = api.ask("GET", "providers/Microsoft.Web")
    assert unknown.json()["error"]["code"] == "InvalidResourceNamespace"
