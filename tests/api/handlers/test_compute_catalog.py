from labctl.model.access import Scope
from tests.api.lab_parts import add_set
from tests.api.serving import Api

COMPUTE = "providers/Microsoft.Compute"


def test_sizes_are_azures_and_those_in_use(api: Api):
    path = f"{COMPUTE}/locations/EastUS/vmSizes"
    before = {each["name"]: each for each in api.ask("GET", path).json()["value"]}
    assert (before["Standard_B2s"]["numberOfCores"], before["Standard_B2s"]["memoryInMB"]) == (
        2,
        4096,
    )
    assert "Lab_1_512" not in before or before["Lab_1_512"]["memoryInMB"] == 512
    add_set(api, "web")
    memory = {each["memoryInMB"] for each in api.ask("GET", path).json()["value"]}
    assert 512 in memory


def test_skus_have_what_clients_ask_for_and_no_restrictions(api: Api):
    query = {"$filter": "location eq 'East US'"}
    found = api.ask("GET", f"{COMPUTE}/skus", query=query, scope=Scope.READ).json()["value"]
    sku = next(each for each in found if each["name"] == "Standard_D2s_v5")
    capabilities = {each["name"]: each["value"] for each in sku["capabilities"]}
    assert (capabilities["vCPUs"], capabilities["MemoryGB"]) == ("2", "8")
    assert (sku["restrictions"], sku["locations"]) == ([], ["eastus"])
    everywhere = api.ask("GET", f"{COMPUTE}/skus").json()["value"]
    assert everywhere[0]["locations"] == ["local"]


def test_usages_count_what_is_asked_for_in_a_region(api: Api):
    add_set(api, "web", region="attic")
    found = api.ask("GET", f"{COMPUTE}/locations/attic/usages").json()["value"]
    assert {each["name"]["value"]: each["currentValue"] for each in found} == {
        "cores": 2,
        "virtualMachines": 2,
        "virtualMachineScaleSets": 1,
    }
    assert api.ask("GET", f"{COMPUTE}/locations/!/usages").status_code == 400


def test_types_that_a_lab_has_not_are_empty_and_refused_with_a_reason(api: Api):
    group = "resourceGroups/labctl/providers"
    for kind in ("Microsoft.Compute/virtualMachines", "Microsoft.Network/networkInterfaces"):
        for path in (f"providers/{kind}", f"{group}/{kind}"):
            assert api.ask("GET", path).json() == {"value": []}
        assert api.ask("GET", f"{group}/{kind}/x").json()["error"]["code"] == "ResourceNotFound"
    for kind in ("Microsoft.Insights/autoscaleSettings", "Microsoft.Storage/storageAccounts"):
        refused = api.ask("PUT", f"{group}/{kind}/x", body={"location": "local"})
        assert refused.json()["error"]["code"] == "NotSupportedInLab"
    assert api.ask("GET", "resourceGroups/no/providers/Microsoft.Compute/disks").status_code == 404
