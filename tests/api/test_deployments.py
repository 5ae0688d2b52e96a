import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from labctl.api import rehearsed
from labctl.api.deploy import make_step
from labctl.api.handlers import deployments
from labctl.api.routes import make_routes
from labctl.controller.operations import Ending, Operations
from labctl.model.access import Scope
from labctl.store.operations import load_open_operations
from labctl.store.scale_sets import load_scale_sets
from tests.api.deploying import NOW, SLOW, World, deployment, make_world, slow, wish
from tests.api.serving import SUBSCRIPTION, VERSION, Api

IMAGE = {"publisher": "labctl", "offer": "tiny", "sku": "default", "version": "latest"}
VNET = {
    "type": "Microsoft.Network/virtualNetworks",
    "apiVersion": VERSION,
    "name": "v",
    "location": "lab1",
    "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}},
}


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.desk.database.close()


def changes(world: World, template, **settings) -> dict:
    body = wish(template)
    body["properties"]["whatIfSettings"] = settings
    answer = world.ask("POST", f"{deployment('d1')}/whatIf", body)
    found = answer.body["properties"]["changes"]
    return {each["resourceId"].rpartition("/")[2]: each for each in found}


def test_validate_tries_everything_and_keeps_nothing(world):
    template = {"resources": [VNET, slow("a")]}
    answer = world.ask("POST", f"{deployment('d1')}/validate", wish(template))
    assert answer.body["properties"]["provisioningState"] == "Succeeded"
    assert len(answer.body["properties"]["validatedResources"]) == 2
    assert world.refuse("GET", f"rg1/providers/{SLOW}/a").code == "ResourceNotFound"
    with world.desk.database.read() as connection:
        assert load_open_operations(connection) == []


def test_validate_tells_what_a_handler_would_refuse(world):
    bad = {**VNET, "name": "w", "properties": {"addressSpace": {"addressPrefixes": "no"}}}
    template = {"resources": [bad, slow("b", properties={"refuse": 1})]}
    error = world.refuse("POST", f"{deployment('d1')}/validate", wish(template))
    assert error.code == "InvalidTemplateDeployment"
    assert "Refused" in [detail.code for detail in error.details]


def test_what_hangs_on_something_slow_is_not_refused_beforehand(world):
    template = {"resources": [slow("a"), slow("b", dependsOn=["a"], properties={"refuse": 1})]}
    answer = world.ask("POST", f"{deployment('d1')}/validate", wish(template))
    assert answer.status == 200
    found = changes(world, template)
    assert found["b"]["changeType"] == "Unsupported"


def test_writers_do_not_wait_for_a_template_that_takes_long_to_try(world, monkeypatch):
    moments = (NOW + 2 * place * timedelta(seconds=1) for place in range(100))
    monkeypatch.setattr(rehearsed, "read_clock", lambda: next(moments))
    template = {"resources": [{**VNET, "name": f"v{place}"} for place in range(4)]}
    found = changes(world, template)
    assert [each["changeType"] for each in found.values()] == [
        "Create", "Create", "Unsupported", "Unsupported",
    ]  # fmt: skip


def test_what_if_tells_what_would_change(world):
    assert changes(world, {"resources": [VNET]})["v"]["changeType"] == "Create"
    world.begin("d0", {"resources": [VNET, slow("other")]})
    world.take_steps()
    same = changes(world, {"resources": [VNET]})
    assert same["v"]["changeType"] == "NoChange"
    assert same["other"]["changeType"] == "Ignore"
    other = {**VNET, "tags": {"a": "b"}}
    changed = changes(world, {"resources": [other]})["v"]
    assert changed["changeType"] == "Modify"
    assert changed["delta"] == [
        {"path": "tags", "propertyChangeType": "Create", "after": {"a": "b"}}
    ]
    brief = changes(world, {"resources": [other]}, resultFormat="ResourceIdOnly")["v"]
    assert brief.keys() == {"resourceId", "changeType"}


@pytest.mark.parametrize(
    ("properties", "code", "target"),
    [
        ({"template": {"resources": []}, "mode": "Complete"}, "NotSupportedInLab",
         "properties.mode"),
        ({"template": {"resources": []}, "mode": 3}, "InvalidDeployment", "properties.mode"),
        ({"templateLink": {"uri": "https://x"}}, "NotSupportedInLab", "properties.templateLink"),
        ({"template": "x"}, "InvalidTemplate", "properties.template"),
        ({"template": {}}, "InvalidTemplate", "resources"),
        ({"template": {"resources": []}, "parameters": []}, "InvalidDeploymentParameterValue",
         "properties.parameters"),
        ([], "InvalidDeployment", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["", "/validate", "/whatIf"])
def test_what_cannot_be_deployed_is_refused(world, properties, code, target, action):
    method = "POST" if action else "PUT"
    error = world.refuse(method, f"{deployment('d1')}{action}", {"properties": properties})
    assert (error.status, error.code, error.target) == (400, code, target)


def test_secrets_that_a_template_spells_out_are_not_exported(world):
    template = {
        "parameters": {"password": {"type": "securestring", "defaultValue": "hunter2"}},
        "resources": [
            slow("a", properties={"customData": "aHVudGVyMg==", "user": "u",
                                  "adminPassword": "[parameters('password')]"})
        ],
    }  # fmt: skip
    world.begin("d1", template)
    exported = world.ask("POST", f"{deployment('d1')}/exportTemplate").body["template"]
    assert exported["parameters"] == {"password": {"type": "securestring"}}
    kept = {"user": "u", "adminPassword": "[parameters('password')]"}
    assert exported["resources"][0]["properties"] == kept


def test_old_deployments_are_forgotten_but_not_active_ones(world, monkeypatch):
    monkeypatch.setattr(deployments, "MOST", 2)
    world.is_held = True
    world.begin("active", {"resources": [slow("a")]})
    world.take_steps(2)
    for name in ("d1", "d2", "d3"):
        world.begin(name, {"resources": []})
        world.take_steps(2)
    listed = world.ask("GET", "rg1/providers/Microsoft.Resources/deployments").body["value"]
    assert {each["name"] for each in listed} == {"active", "d2", "d3"}


def test_over_http_as_az_does_it(api: Api):
    api.ask("PUT", "resourcegroups/rg1", body={"location": "lab1"})
    path = "resourcegroups/rg1/providers/Microsoft.Resources/deployments/d1"
    assert api.ask("HEAD", path).status_code == 404
    template = json.dumps({"resources": [VNET]}, indent=1).replace("{", "{ // a comment\n", 1)
    text = '{"properties": {"parameters": {}, "mode": "Incremental", template:' + template + "\n}}"
    for method, action in (("POST", "/validate"), ("POST", "/whatIf"), ("PUT", "")):
        answer = requests.request(
            method,
            f"{api.url}/subscriptions/{SUBSCRIPTION}/{path}{action}",
            data=text,
            headers={"Authorization": f"Bearer {api.secrets[Scope.OPERATE]}"},
            params={"api-version": VERSION},
            timeout=30,
        )
        assert answer.status_code in {200, 201}, answer.text
    status = requests.get(
        answer.headers["Azure-AsyncOperation"],
        headers={"Authorization": f"Bearer {api.secrets[Scope.READ]}"},
        timeout=30,
    )
    assert status.json()["status"] == "Running"
    assert api.ask("HEAD", path).status_code == 204
    assert api.ask("GET", "resourceGroups/rg1/deployments/d1/operations").json() == {"value": []}
    listed = api.ask("GET", path.rpartition("/")[0]).json()["value"]
    assert [each["name"] for each in listed] == ["d1"]
    refused = api.ask("PUT", path, body={}, scope=Scope.READ)
    assert refused.status_code == 403


@pytest.mark.parametrize("name", ["az-vmss-create", "az-vmss-create-rolling"])
def test_az_vmss_create_makes_a_scale_set_and_asks_for_nothing_more_afterwards(api: Api, name):
    text = (Path("tests/arm/templates") / f"{name}.json").read_text()
    text = re.sub(r'"imageReference": \{[^}]*\}', f'"imageReference": {json.dumps(IMAGE)}', text)
    body = json.loads(text)
    api.ask("PUT", "resourcegroups/rg1", body={"location": "lab"})
    path = "resourcegroups/rg1/providers/Microsoft.Resources/deployments/d1"
    assert api.ask("POST", f"{path}/validate", body=body).status_code == 200
    assert api.ask("PUT", path, body=body).status_code == 201
    take_steps(api)
    properties = api.ask("GET", path).json()["properties"]
    assert properties["provisioningState"] == "Succeeded", properties.get("error")
    shown = properties["outputs"]["VMSS"]["value"]
    assert shown["virtualMachineProfile"]["storageProfile"]["imageReference"] == IMAGE
    assert "customData" not in json.dumps(shown)
    with api.desk.database.read() as connection:
        assert [row.name for row in load_scale_sets(connection)] == [name_of_set(body)]
    found = api.ask("POST", f"{path}/whatIf", body=body).json()["properties"]["changes"]
    assert {each["changeType"] for each in found} == {"NoChange"}


def name_of_set(body) -> str:
    return body["properties"]["template"]["resources"][-1]["name"]


def take_steps(api: Api) -> None:
    steps = {
        "deployment": make_step(api.desk, make_routes()),
        "set-apply": lambda operation: Ending(),  # its instances are up
    }
    runner = Operations(api.desk.database, api.desk.board, quick=steps, slow={})
    for _ in range(10):
        with api.desk.database.read() as connection:
            operations = load_open_operations(connection)
        for operation in operations:
            runner.step_once(operation)


def test_a_template_as_the_public_ones_makes_a_set_that_upgrades_itself(api: Api):
    template = json.loads(Path("tests/arm/templates/rolling-with-probe.json").read_text())
    given = {"setName": {"value": "web"}, "login": {"value": "none"}}
    api.ask("PUT", "resourcegroups/rg1", body={"location": "lab"})
    path = "resourcegroups/rg1/providers/Microsoft.Resources/deployments/d1"
    begun = api.ask("PUT", path, body=wish(template, given))
    assert begun.status_code == 201, begun.text
    take_steps(api)
    properties = api.ask("GET", path).json()["properties"]
    assert properties["provisioningState"] == "Succeeded", properties.get("error")
    assert properties["outputs"] == {"automatic": {"type": "bool", "value": True}}
    del template["resources"][-1]["condition"]
    refused = api.ask("PUT", path, body=wish(template, given))
    assert refused.status_code == 400
    assert "autoscale" in refused.json()["error"]["message"].lower()
