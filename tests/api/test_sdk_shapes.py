"""What Azure's own SDK makes of our documents, without VMs."""

from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient, models

from labctl.api.desk import DEFAULT_GROUP as GROUP
from labctl.model.access import Scope
from tests.api.documents import CUSTOM_DATA, make_scale_set
from tests.api.happenings import fail_extension
from tests.api.labs import SCRIPT, add_instances, make_ready, put_set, see, step
from tests.api.serving import SUBSCRIPTION, Api

LONG = 60  # seconds; only a hang gets there


class Bearer(SansIOHTTPPolicy[Any, Any]):
    """The SDK's own policy sends no token without TLS."""

    def __init__(self, token: str) -> None:
        self._token = token

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {self._token}"


class NoCredential:
    def get_token(self, *scopes: str, **_: Any) -> Any:
        raise AssertionError("the policy has the token")


@pytest.fixture
def client(api: Api) -> Iterator[ComputeManagementClient]:
    with ComputeManagementClient(
        NoCredential(),
        SUBSCRIPTION,
        base_url=api.url,
        authentication_policy=Bearer(api.secrets[Scope.OPERATE]),
        polling_interval=0,
    ) as made:
        yield made


def test_a_scale_set_is_what_was_sent_and_what_azure_adds(client):
    sets = client.virtual_machine_scale_sets
    sets.begin_create_or_update(GROUP, "web", make_scale_set(), polling=False)
    found = sets.get(GROUP, "web")
    assert isinstance(found, models.VirtualMachineScaleSet)
    assert found.type == "Microsoft.Compute/virtualMachineScaleSets"
    assert found.id.endswith(f"/resourceGroups/{GROUP}/providers/{found.type}/web")
    assert (found.location, found.tags, found.sku.capacity) == ("local", {"purpose": "test"}, 2)
    policy = found.properties.upgrade_policy
    assert policy.mode == "Manual"
    assert policy.rolling_upgrade_policy.max_batch_instance_percent == 50
    assert policy.automatic_os_upgrade_policy.use_rolling_upgrade_policy is True
    profile = found.properties.virtual_machine_profile
    assert profile.storage_profile.image_reference.offer == "tiny"
    assert profile.storage_profile.data_disks[0].disk_size_gb == 1
    assert profile.os_profile.linux_configuration.disable_password_authentication is True
    (health,) = profile.extension_profile.extensions
    assert health.properties.type == "ApplicationHealthLinux"
    assert health.properties.settings["port"] == 8080
    assert found.properties.time_created is not None
    assert CUSTOM_DATA not in str(found.as_dict())
    # Nothing is unknown to the SDK but what labctl says of its own.
    known = models.VirtualMachineScaleSet._attr_to_rest_field
    assert set(found.as_dict()) <= {field._rest_name for field in known.values()}
    assert [each.name for each in sets.list(GROUP)] == ["web"]
    assert [each.id for each in sets.list_all()] == [found.id]


def test_what_was_read_may_be_sent_back_and_changes_nothing(client):
    sets = client.virtual_machine_scale_sets
    sets.begin_create_or_update(GROUP, "web", make_scale_set(), polling=False)
    before = sets.get(GROUP, "web")
    sets.begin_create_or_update(GROUP, "web", before, polling=False)
    after = sets.get(GROUP, "web")
    assert after.as_dict() == before.as_dict()


def test_lists_of_instances_are_paged_and_tell_their_views(api, client):
    put_set(api, "web", 250)
    add_instances(api, *range(250))
    make_ready(api, *range(250))
    see(api)
    vms = client.virtual_machine_scale_set_vms
    pages = [list(page) for page in vms.list(GROUP, "web", expand="instanceView").by_page()]
    assert len(pages) > 2
    found = [vm for page in pages for vm in page]
    assert [vm.instance_id for vm in found] == [str(n) for n in range(250)]
    assert len({vm.properties.vm_id for vm in found}) == 250
    for vm in (found[0], found[-1]):
        assert isinstance(vm, models.VirtualMachineScaleSetVM)
        codes = [status.code for status in vm.properties.instance_view.statuses]
        assert codes == ["ProvisioningState/succeeded", "PowerState/running"]
    one = vms.get(GROUP, "web", "249")
    assert (one.name, one.properties.latest_model_applied) == ("web_249", True)
    view = client.virtual_machine_scale_sets.get_instance_view(GROUP, "web")
    counts = {each.code: each.count for each in view.virtual_machine.statuses_summary}
    assert counts["ProvisioningState/succeeded"] == 250
    assert list(client.virtual_machine_scale_sets.get_os_upgrade_history(GROUP, "web")) == []


def test_only_what_is_selected_is_told_of_instances(client, api):
    put_set(api, "web", 1, extensions=(SCRIPT,))
    add_instances(api, 0)
    make_ready(api, 0)
    fail_extension(api, "web_0", "script", exit_code=0)
    see(api)
    vms = client.virtual_machine_scale_set_vms
    (whole,) = vms.list(GROUP, "web", expand="instanceView")
    assert [each.name for each in whole.resources] == ["script"]
    (chosen,) = vms.list(GROUP, "web", expand="instanceView", select="instanceView")
    assert set(chosen.as_dict()) == {"id", "name", "instanceId", "properties"}
    assert chosen.as_dict()["properties"] == {
        "instanceView": whole.as_dict()["properties"]["instanceView"]
    }


def test_an_operation_that_failed_names_each_instance_in_its_details(api, client):
    sets = client.virtual_machine_scale_sets
    body = make_scale_set()
    body["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"] = [SCRIPT]
    poller = sets.begin_create_or_update(GROUP, "web", body)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    fail_extension(api, "web_0", "script", exit_code=0)
    fail_extension(api, "web_1", "script")
    see(api)
    step(api)
    with pytest.raises(HttpResponseError) as failed:
        poller.result(LONG)
    error = failed.value.error
    assert error.code
    assert [(each.target, bool(each.code)) for each in error.details] == [("1", True)]
    assert "script" in error.details[0].message


def test_galleries_images_and_versions_are_what_the_sdk_knows(client):
    gallery = client.galleries.get(GROUP, GROUP)
    assert isinstance(gallery, models.Gallery)
    assert [each.name for each in client.galleries.list_by_resource_group(GROUP)] == [GROUP]
    image = client.gallery_images.get(GROUP, GROUP, "tiny")
    assert (image.properties.os_type, image.properties.os_state) == ("Linux", "Generalized")
    assert image.properties.identifier.offer
    versions = list(client.gallery_image_versions.list_by_gallery_image(GROUP, GROUP, "tiny"))
    assert [each.name for each in versions] == ["1.0.0", "1.1.0"]
    assert all(each.properties.publishing_profile.published_date for each in versions)
    one = client.gallery_image_versions.get(
        GROUP, GROUP, "tiny", "1.0.0", expand="ReplicationStatus"
    )
    assert one.properties.provisioning_state == "Succeeded"
    assert one.properties.replication_status.aggregated_state == "Completed"


def test_platform_images_are_lists_without_pages(client):
    images = client.virtual_machine_images
    assert [each.name for each in images.list_publishers("local")] == ["labctl"]
    assert [each.name for each in images.list_offers("local", "labctl")] == ["tiny"]
    assert [each.name for each in images.list_skus("local", "labctl", "tiny")] == ["default"]
    where = ("local", "labctl", "tiny", "default")
    assert [each.name for each in images.list(*where, top=1, orderby="name desc")] == ["1.1.0"]
    one = images.get(*where, "1.1.0")
    assert isinstance(one, models.VirtualMachineImage)
    assert one.properties.automatic_os_upgrade_properties.automatic_os_upgrade_supported is True


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda c: c.virtual_machine_scale_sets.get(GROUP, "none"), "ResourceNotFound"),
        (lambda c: c.virtual_machine_scale_sets.get("none", "web"), "ResourceGroupNotFound"),
        (lambda c: c.galleries.get(GROUP, "none"), "ResourceNotFound"),
        (lambda c: c.gallery_images.get(GROUP, GROUP, "none"), "ResourceNotFound"),
    ],
    ids=["scale set", "group", "gallery", "image"],
)
def test_what_is_not_there_is_the_sdks_own_exception(client, ask, code):
    with pytest.raises(ResourceNotFoundError) as missing:
        ask(client)
    assert missing.value.error.code == code
    assert missing.value.error.message
