from labctl.model.access import Scope
from tests.api.lab_parts import add_set, make_group
from tests.api.serving import Api


def find_types(api: Api, path: str, wanted: str = "") -> list[str]:
    query = {"$filter": wanted} if wanted else {}
    answer = api.ask("GET", path, query=query, scope=Scope.READ)
    return [each["type"].partition("/")[2] for each in answer.json()["value"]]


def test_everything_is_listed_in_its_group(api: Api):
    make_group(api)
    path = "resourceGroups/rg1/providers/Microsoft.Network/natGateways/n"
    api.ask("PUT", path, body={"location": "eastus", "tags": {"a": "b"}})
    add_set(api, "Web", group="rg1", region="attic")
    add_set(api, "plain")
    default = ["galleries", "galleries/images", "virtualMachineScaleSets"]
    assert find_types(api, "resourceGroups/RG1/resources") == [
        "virtualMachineScaleSets",
        "natGateways",
    ]
    assert find_types(api, "resourceGroups/labctl/resources") == default
    assert len(find_types(api, "resources")) == 5
    sets = "resourceType eq 'microsoft.compute/virtualMachineScaleSets'"
    found = api.ask("GET", "resources", query={"$filter": sets}).json()["value"]
    assert [(each["name"], each["location"]) for each in found] == [
        ("plain", "local"),
        ("Web", "attic"),
    ]
    assert find_types(api, "resources", "tagName eq 'a' and tagValue eq 'b'") == ["natGateways"]
    assert find_types(api, "resources", f"{sets} and resourceGroup eq 'rg1'") == [
        "virtualMachineScaleSets"
    ]
    assert len(api.ask("GET", "resources", query={"$top": "2"}).json()["value"]) == 2


def test_what_cannot_be_asked_is_refused(api: Api):
    assert api.ask("GET", "resourceGroups/rg1/resources").status_code == 404
    for query in ({"$filter": "colour eq 'red'"}, {"$top": "0"}, {"$skiptoken": "x"}):
        assert api.ask("GET", "resources", query=query).status_code == 400
