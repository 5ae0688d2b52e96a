from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.api.galleries import IMAGE
from labctl.api.images import Form, describe_image, find_form, find_image
from labctl.arm.errors import ArmError
from labctl.model.publisher import Architecture
from labctl.store.arm_resources import save_resource
from labctl.store.origins import PulledSku, save_pulled_sku
from tests.api.serving import SUBSCRIPTION, Api

COMPUTE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/labctl/providers/Microsoft.Compute"
TINY = f"{COMPUTE}/galleries/labctl/images/tiny"
PLATFORM = {"publisher": "labctl", "offer": "tiny", "sku": "default"}


def find(api: Api, reference: Any) -> tuple[str, str]:
    with api.desk.database.read() as connection:
        return find_image(connection, reference, target="imageReference", desk=api.desk)


def describe(api: Api, *words: Any, **more: Any) -> dict[str, Any]:
    with api.desk.database.read() as connection:
        return describe_image(connection, *words, desk=api.desk, **more)


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ({"id": TINY}, "latest"),
        ({"id": TINY.upper()}, "latest"),
        ({"id": f"{TINY}/versions/latest"}, "latest"),
        ({"id": f"{TINY}/versions/1.0.0", "publisher": None}, "1.0.0"),
        ({"id": TINY, "version": "1.1.0"}, "1.1.0"),
        ({**PLATFORM, "version": "latest", "exactVersion": "1.1.0"}, "latest"),
        ({**PLATFORM, "version": "1.0.0"}, "1.0.0"),
        ({"publisher": "LabCtl", "offer": "Tiny", "sku": "Default", "version": "Latest"}, "latest"),
    ],
)
def test_a_reference_means_one_image_in_any_case(same: Api, reference: dict[str, Any], meant: str):
    assert find(same, reference) == ("tiny", meant)


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        (None, 400, "InvalidParameter"),
        ({}, 400, "InvalidParameter"),
        ([], 400, "InvalidParameter"),
        ({"id": 7}, 400, "LinkedInvalidPropertyId"),
        ({"id": f"{TINY}/versions/1.0"}, 400, "InvalidParameter"),
        ({"id": f"{TINY}/versions/9.0.0"}, 404, "GalleryImageNotFound"),
        ({"id": f"{TINY}x"}, 404, "GalleryImageNotFound"),
        ({"id": TINY.replace("/labctl/images", "/other/images")}, 404, "GalleryImageNotFound"),
        ({"id": TINY.replace(SUBSCRIPTION, "other")}, 404, "GalleryImageNotFound"),
        ({"id": f"{TINY}/versions/1.0.0", "version": "1.1.0"}, 400, "InvalidParameter"),
        ({"id": TINY, **PLATFORM}, 400, "InvalidParameter"),
        (PLATFORM, 400, "InvalidParameter"),
        ({**PLATFORM, "version": "1"}, 400, "InvalidParameter"),
        ({**PLATFORM, "version": "2.0.0"}, 404, "PlatformImageNotFound"),
        ({**PLATFORM, "offer": "none", "version": "latest"}, 404, "PlatformImageNotFound"),
        ({"sharedGalleryImageId": "/x"}, 400, "NotSupportedInLab"),
        ({"communityGalleryImageId": "/x"}, 400, "NotSupportedInLab"),
        ({"id": f"{COMPUTE}/images/mine"}, 400, "NotSupportedInLab"),
    ],
)
def test_what_means_no_image_is_refused_with_azures_code(
    same: Api, reference: Any, status: int, code: str
):
    with pytest.raises(ArmError) as caught:
        find(same, reference)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_what_was_written_is_given_back_while_it_means_the_image(same: Api):
    written = {"id": f"{TINY.replace('tiny', 'TINY')}/versions/latest"}
    assert describe(same, "tiny", "latest", written=written) == written
    assert describe(same, "tiny", "1.0.0", written=written) == {"id": f"{TINY}/versions/1.0.0"}
    by_name = {**PLATFORM, "publisher": "LABCTL", "version": "latest"}
    assert describe(same, "tiny", "latest", written={**by_name, "exactVersion": "1.1.0"}) == by_name
    assert find_form(by_name) is Form.PUBLISHER
    assert describe(same, "tiny", "1.0.0", Form.PUBLISHER) == {**PLATFORM, "version": "1.0.0"}
    assert describe(same, "tiny", "latest") == {"id": TINY}


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("version", ["latest", "1.0.0"])
def test_what_is_described_is_found_again(same: Api, form: Form, version: str):
    assert find(same, describe(same, "tiny", version, form)) == ("tiny", version)


def test_a_definition_is_only_in_its_own_gallery(api: Api):
    home = TINY.replace("Groups/labctl", "Groups/Rg1").replace("galleries/labctl", "galleries/G1")
    with api.desk.database.write() as connection:
        save_resource(
            connection,
            home.replace("tiny", "Tiny"),
            type=IMAGE,
            group="rg1",
            name="Tiny",
            document={},
            now=datetime.now(UTC),
        )
    assert find(api, {"id": home.lower()}) == ("tiny", "latest")
    assert describe(api, "tiny", "latest") == {"id": home.replace("tiny", "Tiny")}
    with pytest.raises(ArmError):
        find(api, {"id": TINY})
    assert find(api, {**PLATFORM, "version": "1.0.0"}) == ("tiny", "1.0.0")


def test_a_pulled_definition_is_found_under_its_publishers_names(api: Api):
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
    urn = {"publisher": "Ubuntu", "offer": "server", "sku": "24.04", "version": "latest"}
    assert find(api, urn) == ("tiny", "latest")
    assert describe(api, "tiny", "latest", written=urn) == urn
    # Changed by a command meanwhile: still under the names that the client used.
    assert describe(api, "tiny", "1.0.0", written=urn) == {**urn, "version": "1.0.0"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(TINY),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
names = st.sampled_from(["id", "publisher", "offer", "sku", "version", "sharedGalleryImageId"])


@settings(max_examples=60)
@given(reference=anything | st.dictionaries(names, anything))
def test_whatever_is_sent_means_an_image_or_is_refused(same: Api, reference: Any):
    try:
        answer = find(same, reference)
    except ArmError as error:
        answer = error.status
    assert answer in {("tiny", "latest"), 400, 404}
