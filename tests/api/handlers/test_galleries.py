from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.model.access import Scope
from labctl.model.image import OsType
from labctl.store.gallery import find_definition
from tests.api.serving import SUBSCRIPTION, Api

GALLERIES = "resourceGroups/Rg1/providers/Microsoft.Compute/galleries"
MINE = f"{GALLERIES}/My.Gallery"
DEFAULT = "resourceGroups/labctl/providers/Microsoft.Compute/galleries/labctl"
IDENTIFIER = {"publisher": "me", "offer": "web", "sku": "1"}
IMAGE = {
    "location": "eastus",
    "properties": {"osType": "Linux", "osState": "Generalized", "identifier": IDENTIFIER},
}


@pytest.fixture
def lab(api: Api) -> Api:
    """With a group and a gallery in it."""
    group = {"location": "East US"}
    assert api.ask("PUT", "resourceGroups/Rg1", body=group).status_code == 201
    body = {"location": "East US", "properties": {"description": "mine"}, "tags": {"a": "b"}}
    assert api.ask("PUT", MINE, body=body).status_code == 201
    return api


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_gallery_is_made_shown_changed_and_deleted(lab: Api):
    shown = lab.ask("GET", MINE.upper().replace("RESOURCEGROUPS", "resourcegroups"))
    document = shown.json()
    assert document["id"] == f"/subscriptions/{SUBSCRIPTION}/{MINE}"
    assert document["location"] == "eastus"
    assert document["etag"] == shown.headers["ETag"]
    assert document["properties"]["provisioningState"] == "Succeeded"
    assert lab.ask("PUT", MINE, body=document).json() == document
    changed = lab.ask("PATCH", MINE, body={"properties": {"description": "ours"}}).json()
    assert changed["properties"]["description"] == "ours"
    assert changed["tags"] == {"a": "b"}
    moved = lab.ask("PUT", MINE, body={"location": "westus"})
    assert code(moved) == (409, "InvalidResourceLocation")
    for path in (GALLERIES, "providers/Microsoft.Compute/galleries"):
        names = [each["name"] for each in lab.ask("GET", path).json()["value"]]
        assert "My.Gallery" in names
    assert lab.ask("DELETE", MINE, scope=Scope.READ).status_code == 403
    assert lab.ask("DELETE", MINE).status_code == 200
    assert lab.ask("DELETE", MINE).status_code == 204
    assert code(lab.ask("GET", MINE)) == (404, "ResourceNotFound")


def test_the_default_gallery_holds_what_was_made_without_the_api(api: Api):
    gallery = api.ask("GET", DEFAULT)
    assert gallery.json()["name"] == "labctl"
    [image] = api.ask("GET", f"{DEFAULT}/images").json()["value"]
    assert image["properties"]["osType"] == "Linux"
    versions = api.ask("GET", f"{DEFAULT}/images/TINY/versions").json()["value"]
    assert [each["name"] for each in versions] == ["1.0.0", "1.1.0"]
    assert code(api.ask("DELETE", DEFAULT)) == (409, "OperationNotAllowed")
    tagged = api.ask("PATCH", f"{DEFAULT}/images/tiny", body={"tags": {"x": "y"}}).json()
    assert tagged == image | {"tags": {"x": "y"}, "etag": tagged["etag"]}
    assert code(api.ask("DELETE", f"{DEFAULT}/images/tiny")) == (409, "CannotDeleteResource")


def test_an_image_is_made_shown_changed_and_deleted(lab: Api):
    at = f"{MINE}/images/Web"
    features = [{"name": "SecurityType", "value": "TrustedLaunchSupported"}]
    body = {**IMAGE, "properties": {**IMAGE["properties"], "features": features}}
    body["properties"] |= {"hyperVGeneration": "V2", "description": "for the web"}
    made = lab.ask("PUT", at, body=body)
    assert made.status_code == 201
    document = made.json()
    assert document["properties"]["features"] == features
    assert lab.ask("GET", at.lower()).json() == document
    again = lab.ask("PUT", at, body=document)
    assert (again.status_code, again.json()) == (200, document)
    with lab.desk.database.read() as connection:
        definition = find_definition(connection, "web")
    assert definition is not None
    assert definition.description == "for the web"
    change = {"properties": {"description": None, "endOfLifeDate": "2030-01-01"}}
    changed = lab.ask("PATCH", at, body=change).json()["properties"]
    assert "description" not in changed
    assert changed["endOfLifeDate"] == "2030-01-01"
    for name, value in (("hyperVGeneration", "V1"), ("osType", "Windows")):
        refused = lab.ask("PATCH", at, body={"properties": {name: value}})
        assert code(refused) == (409, "PropertyChangeNotAllowed")
    assert code(lab.ask("DELETE", MINE)) == (409, "CannotDeleteResource")
    stale = lab.ask("DELETE", at, headers={"If-Match": made.headers["ETag"]})
    assert stale.status_code == 412
    assert lab.ask("DELETE", at).status_code == 200
    assert lab.ask("DELETE", at).status_code == 204
    assert lab.ask("DELETE", MINE).status_code == 200


def test_names_of_images_are_unique_in_the_lab(lab: Api):
    refused = lab.ask("PUT", f"{MINE}/images/Tiny", body=IMAGE)
    assert code(refused) == (409, "Conflict")
    assert "/galleries/labctl/images/tiny" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"osState": "Specialized"}, "NotSupportedInLab"),
        ({"features": [{"name": "SecurityType", "value": "TrustedLaunch"}]}, "NotSupportedInLab"),
        ({"architecture": "Arm64"}, "NotSupportedInLab"),
        ({"osType": None}, "InvalidParameter"),
        ({"osType": "BeOS"}, "InvalidParameter"),
        ({"identifier": None}, "InvalidParameter"),
        ({"identifier": {"publisher": "x"}}, "InvalidParameter"),
        ({"endOfLifeDate": 5}, "InvalidParameter"),
        ({"endOfLifeDate": "0001-01-01T00:00:00+23:00"}, "InvalidParameter"),
        ({"labctl": {"osType": "windows"}}, "InvalidParameter"),
        ({"labctl": {"other": 1}}, "InvalidParameter"),
        ({"unknown": 1}, "InvalidParameter"),
    ],
)
def test_what_an_image_of_a_lab_cannot_be_is_refused(same: Api, change: Any, expected: str):
    body = {**IMAGE, "location": "local", "properties": {**IMAGE["properties"], **change}}
    refused = same.ask("PUT", f"{DEFAULT}/images/web", body=body)
    assert code(refused) == (400, expected)


@pytest.mark.parametrize("name", ["a_b", "1a", "a" * 41, "a.b", "-a", "ä"])
def test_a_name_that_no_definition_can_have_is_refused(same: Api, name: str):
    refused = same.ask("PUT", f"{DEFAULT}/images/{name}", body=IMAGE)
    assert code(refused) == (400, "InvalidParameter")
    assert "1 to 40 letters" in refused.json()["error"]["message"]


def test_flatcar_is_linux_to_azures_clients(api: Api):
    at = f"{DEFAULT}/images/flat"
    body = {**IMAGE, "properties": {**IMAGE["properties"], "labctl": {"osType": "flatcar"}}}
    made = api.ask("PUT", at, body=body).json()
    assert made["properties"]["osType"] == "Linux"
    assert made["properties"]["labctl"] == {"osType": "flatcar"}
    with api.desk.database.read() as connection:
        definition = find_definition(connection, "flat")
    assert definition is not None
    assert definition.os_type is OsType.FLATCAR
    assert api.ask("PUT", at, body={"tags": {"a": "b"}}).status_code == 200


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"sharingProfile": {"permissions": "Groups"}}, "NotSupportedInLab"),
        ({"softDeletePolicy": {"isSoftDeleteEnabled": True}}, "NotSupportedInLab"),
        ({"description": 7}, "InvalidParameter"),
    ],
)
def test_what_a_gallery_of_a_lab_cannot_do_is_refused(same: Api, properties: Any, expected: str):
    body = {"location": "local", "properties": properties}
    assert code(same.ask("PUT", DEFAULT, body=body)) == (400, expected)


def test_in_a_group_that_is_not_there_is_no_gallery(same: Api):
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert code(same.ask(method, f"{MINE}/images/x", body={}))[1] == "ResourceGroupNotFound"
    body = {"location": "local"}
    assert code(same.ask("GET", DEFAULT.replace("ies/labctl", "ies/other")))[0] == 404
    assert code(same.ask("PUT", DEFAULT.replace("ies/labctl", "ies/-"), body=body))[0] == 400


def test_nobody_shares_galleries_with_a_lab(same: Api):
    for kind in ("sharedGalleries", "communityGalleries"):
        answer = same.ask("GET", f"providers/Microsoft.Compute/locations/eastus/{kind}")
        assert answer.json() == {"value": []}


WORDS = (
    "location tags properties publishingProfile targetRegions name source storageProfile "
    "osDiskImage uri id excludeFromLatest endOfLifeDate identifier osType osState features "
    "safetyProfile description recommended vCPUs min max sharingProfile labctl value "
    "blockDeletionBeforeEndOfLife replicaCount hyperVGeneration"
)
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "Linux", "eastus", "2030-01-01", "file:///x", "/etc/passwd", "\x00"])
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    path=st.sampled_from(["", "/images/tiny", "/images/new", "/images/tiny/versions/1.0.0"]),
    method=st.sampled_from(["PUT", "PATCH"]),
    properties=st.dictionaries(KEYS, VALUES, max_size=4) | VALUES,
    rest=st.dictionaries(KEYS, VALUES, max_size=2),
)
def test_whatever_is_sent_is_taken_or_refused(
    same: Api, path: str, method: str, properties: Any, rest: Any
):
    body = {"location": "local", **rest, "properties": properties}
    answer = same.ask(method, f"{DEFAULT}{path}", body=body)
    assert answer.status_code in {200, 201, 400, 403, 404, 409}
    shown = same.ask("GET", f"{DEFAULT}{path}")
    assert shown.status_code == 404 or shown.json()["etag"] == shown.headers["ETag"]
