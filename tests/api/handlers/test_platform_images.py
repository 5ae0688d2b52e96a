from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labctl.model.image import ImageVersion, VersionNumber
from labctl.model.publisher import Architecture
from labctl.store.gallery import add_version, get_version
from labctl.store.offers import exclude_version, replicate_version, set_end_of_life
from labctl.store.origins import PulledSku, save_pulled_sku
from tests.api.serving import SUBSCRIPTION, Api

LOCATION = "providers/Microsoft.Compute/locations/East US"
SKUS = "artifacttypes/vmimage/offers/tiny/skus"
VERSIONS = f"{LOCATION}/publishers/labctl/{SKUS}/default/versions"
NOW = datetime.now(UTC)


def add(api: Api, *numbers: VersionNumber) -> None:
    with api.desk.database.write() as connection:
        image: ImageVersion = get_version(connection, "tiny", VersionNumber(1, 0, 0), now=NOW)
        for number in numbers:
            add_version(connection, replace(image, version=number))


def names(answer: Any) -> list[str]:
    return [each["name"] for each in answer.json()]


def test_versions_are_ordered_by_number(api: Api):
    add(api, VersionNumber(1, 9, 0), VersionNumber(1, 10, 0))
    assert names(api.ask("GET", VERSIONS)) == ["1.0.0", "1.1.0", "1.9.0", "1.10.0"]
    query = {"$expand": "properties", "$orderby": "name desc", "$top": "1"}
    [newest] = api.ask("GET", VERSIONS, query=query).json()
    assert newest["name"] == "1.10.0"
    assert newest["properties"]["automaticOSUpgradeProperties"] == {
        "automaticOSUpgradeSupported": True
    }
    assert newest["properties"]["imageDeprecationStatus"] == {"imageState": "Active"}
    shown = api.ask("GET", f"{VERSIONS}/1.10.0").json()
    assert shown == newest
    assert shown["id"] == (
        f"/Subscriptions/{SUBSCRIPTION}/Providers/Microsoft.Compute/Locations/eastus/Publishers/"
        "labctl/ArtifactTypes/VMImage/Offers/tiny/Skus/default/Versions/1.10.0"
    )
    assert names(api.ask("GET", VERSIONS, query={"$top": "0"})) == []


def test_only_what_latest_may_mean_in_the_region_is_listed(api: Api):
    add(api, VersionNumber(1, 2, 0), VersionNumber(1, 3, 0))
    with api.desk.database.write() as connection:
        number = VersionNumber(1, 1, 0)
        exclude_version(connection, "tiny", number, now=NOW)
        replicate_version(connection, "tiny", VersionNumber(1, 2, 0), ["westus"], now=NOW)
        past, later = NOW - timedelta(days=1), NOW + timedelta(days=9)
        set_end_of_life(connection, "tiny", VersionNumber(1, 3, 0), past, now=NOW)
        set_end_of_life(connection, "tiny", VersionNumber(1, 0, 0), later, now=NOW)
    assert names(api.ask("GET", VERSIONS)) == ["1.0.0"]
    assert names(api.ask("GET", VERSIONS.replace("East US", "westus"))) == ["1.0.0", "1.2.0"]
    states = {
        version: api.ask("GET", f"{VERSIONS}/{version}").json()["properties"][
            "imageDeprecationStatus"
        ]["imageState"]
        for version in ("1.0.0", "1.1.0", "1.3.0")
    }
    assert states == {"1.0.0": "ScheduledForDeprecation", "1.1.0": "Active", "1.3.0": "Deprecated"}
    assert api.ask("GET", f"{VERSIONS}/1.2.0").status_code == 404


def test_what_was_pulled_is_listed_under_its_publisher_too(api: Api):
    with api.desk.database.write() as connection:
        save_pulled_sku(
            connection,
            PulledSku(
                definition="tiny",
                publisher="ubuntu",
                offer="server",
                sku="24.04",
                architecture=Architecture.X86_64,
            ),
        )
    at = f"{LOCATION}/publishers"
    assert names(api.ask("GET", at)) == ["labctl", "ubuntu"]
    at += "/Ubuntu/artifacttypes/vmimage/offers"
    assert names(api.ask("GET", at)) == ["server"]
    at += "/SERVER/skus"
    assert names(api.ask("GET", at)) == ["24.04"]
    assert names(api.ask("GET", f"{at}/24.04/versions")) == ["1.0.0", "1.1.0"]


@pytest.mark.parametrize(
    "path",
    [
        f"{LOCATION}/publishers/nobody/artifacttypes/vmimage/offers",
        f"{LOCATION}/publishers/labctl/artifacttypes/vmimage/offers/none/skus",
        f"{LOCATION}/publishers/labctl/{SKUS}/none/versions",
        f"{VERSIONS}/9.9.9",
    ],
)
def test_what_is_not_there_is_not_found(same: Api, path: str):
    answer = same.ask("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NotFound")


@pytest.mark.parametrize(
    "query",
    [{"$top": "x"}, {"$top": "-1"}, {"$top": "1" * 99}, {"$orderby": "size"}, {"$orderby": ""}],
)
def test_a_wrong_query_is_refused(same: Api, query: dict[str, str]):
    assert same.ask("GET", VERSIONS, query=query).status_code == 400
    assert same.ask("GET", VERSIONS.replace("East US", "a_b")).status_code == 400
