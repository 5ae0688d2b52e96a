from typing import Any

from labctl.model.access import Scope
from labctl.store.operations import load_open_operations
from tests.api.lab_parts import add_set, load_everything, make_group
from tests.api.serving import SUBSCRIPTION, Api


def test_a_group_is_made_shown_and_found_in_any_case(api: Api):
    body = {"location": "East US", "tags": {"use": "test"}}
    made = api.ask("PUT", "resourcegroups/Rg1", body=body)
    assert made.status_code == 201
    assert made.json() == {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Rg1",
        "name": "Rg1",
        "type": "Microsoft.Resources/resourceGroups",
        "location": "eastus",
        "tags": {"use": "test"},
        "properties": {"provisioningState": "Succeeded"},
    }
    for path in ("resourceGroups/RG1", "RESOURCEGROUPS/rg1"):
        assert api.ask("GET", path).json() == made.json()
    again = api.ask("PUT", "resourceGroups/rg1", body=body)
    assert (again.status_code, again.json()) == (200, made.json())
    assert [each["name"] for each in api.ask("GET", "resourceGroups").json()["value"]] == [
        "labctl",
        "Rg1",
    ]


def test_whether_a_group_exists_is_told_by_the_status(api: Api):
    assert api.ask("HEAD", "resourceGroups/labctl").status_code == 204
    assert api.ask("HEAD", "resourceGroups/other").status_code == 404
    assert api.ask("GET", "resourceGroups/other").json()["error"]["code"] == "ResourceGroupNotFound"


def test_tags_are_replaced_and_the_location_stays(api: Api):
    make_group(api)
    changed = api.ask("PATCH", "resourceGroups/rg1", body={"tags": {"a": 1}})
    assert changed.json()["tags"] == {"a": "1"}
    wanted = {"$filter": "tagName eq 'A' and tagValue eq '1'"}
    assert len(api.ask("GET", "resourceGroups", query=wanted).json()["value"]) == 1
    moved = api.ask("PUT", "resourceGroups/rg1", body={"location": "west"})
    assert moved.status_code == 409
    assert moved.json()["error"]["code"] == "InvalidResourceGroupLocation"
    assert "tags" not in api.ask("PUT", "resourceGroups/rg1", body={"location": "eastus"}).json()


def test_conditions_are_checked(api: Api):
    body = {"location": "eastus"}
    missing = api.ask("PUT", "resourceGroups/rg1", body=body, headers={"If-Match": "*"})
    assert missing.status_code == 412
    etag = api.ask("PUT", "resourceGroups/rg1", body=body).headers["ETag"]
    other = api.ask("PUT", "resourceGroups/rg1", body=body, headers={"If-None-Match": "*"})
    assert other.status_code == 412
    tags = {"tags": {"a": "b"}}
    for status in (200, 412):  # the second time it is another one
        found = api.ask("PATCH", "resourceGroups/rg1", body=tags, headers={"If-Match": etag})
        assert found.status_code == status


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("rg1", {}),
    ("rg1", {"location": 1}),
    ("rg1", {"location": "eastus", "tags": [1]}),
    ("rg1", {"location": "eastus", "managedBy": {}}),
    ("rg1", {"location": "eastus", "colour": "red"}),
    ("rg1.", {"location": "eastus"}),
    ("a" * 91, {"location": "eastus"}),
]


def test_what_is_refused_changes_nothing(api: Api):
    for name, body in REFUSED:
        answer = api.ask("PUT", f"resourceGroups/{name}", body=body)
        assert answer.status_code == 400
        assert load_everything(api) == []


def test_only_those_who_operate_may_write(api: Api):
    body = {"location": "eastus"}
    refused = api.ask("PUT", "resourceGroups/rg1", body=body, scope=Scope.READ)
    assert (refused.status_code, load_everything(api)) == (403, [])
    assert api.ask("PUT", "resourceGroups/rg1", body=body, scope=Scope.OPERATE).status_code == 201


def test_the_group_of_what_was_made_without_the_api_stays(api: Api):
    refused = api.ask("DELETE", "resourceGroups/LABCTL")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "OperationNotAllowed")


def test_deletion_is_one_operation_however_often_it_is_asked_for(api: Api):
    make_group(api)
    add_set(api, "Web", group="rg1")
    first, second = (api.ask("DELETE", "resourceGroups/rg1") for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.headers["Azure-AsyncOperation"] == second.headers["Azure-AsyncOperation"]
    with api.desk.database.read() as connection:
        (operation,) = load_open_operations(connection)
    assert operation.id in first.headers["Location"]
    shown = api.ask("GET", "resourceGroups/rg1").json()
    assert shown["properties"]["provisioningState"] == "Deleting"
    network = "resourceGroups/rg1/providers/Microsoft.Network/natGateways/n"
    for path in ("resourceGroups/rg1", network):
        refused = api.ask("PUT", path, body={"location": "eastus"})
        assert refused.json()["error"]["code"] == "ResourceGroupBeingDeleted"
