"""Azure's own SDK against a running server on real VMs: one scale set, from its birth to its end.

The tests follow one another: what one leaves is where the next begins.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.mgmt.compute import ComputeManagementClient

from tests.api.documents import make_scale_set
from tests.e2e.api_server import GROUP, ApiServer, serving_api, tiny_id, write_key
from tests.e2e.harness import (
    Lab,
    checksum,
    share_build_cache,
    state_directory,
    wait_for,
    write_payload,
)

LONG = 300  # seconds; only a hang gets there
SET = "sdk"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
DISK = {"lun": 0, "name": "data", "createOption": "Empty", "diskSizeGB": 1}
PAGES_PATCH = {
    "properties": {
        "upgradePolicy": {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}}
    }
}

# One after another, on one worker: they share a lab.
pytestmark = pytest.mark.timeout(600)


class StaticToken:
    """A credential that always has the same token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self._token, 2**33)


def connect(server: ApiServer, token: str | None = None) -> ComputeManagementClient:
    return ComputeManagementClient(
        StaticToken(server.token if token is None else token),
        server.subscription,
        base_url=server.url,
        credential_scopes=["https://management.lab/.default"],
        connection_verify=server.ca,
        polling_interval=0.2,
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """tiny/1.0.0 is published; next/1.1.0 waits to become a version of tiny."""
    with state_directory() as path:
        share_build_cache(path)
        made = Lab(path)
        made.build("1.0.0", "--publish")
        made.build("1.1.0", definition="next")
        yield made
        for row in made.json("list"):
            made.remove(row["name"])


@pytest.fixture(scope="module")
def server(lab) -> Iterator[ApiServer]:
    with serving_api(lab) as running:
        yield running


@pytest.fixture(scope="module")
def client(server) -> Iterator[ComputeManagementClient]:
    with connect(server) as made:
        yield made


@pytest.fixture(scope="module")
def web(lab, server, client) -> Any:
    """The set as the SDK makes it."""
    body = make_scale_set(
        image={"id": tiny_id(server)}, key=write_key(lab.state_dir), data_disks=[DISK]
    )
    body["properties"]["labctl"] = {
        "timeouts": {"boot": "90s", "customData": "60s", "shutdown": "20s"},
        "dataDisks": [{"name": "data", "fileSystem": "ext4", "mountPoint": "/data"}],
        "upgradePolicy": {"healthTimeout": "30s"},
    }
    return client.virtual_machine_scale_sets.begin_create_or_update(GROUP, SET, body).result(LONG)


def publish(server: ApiServer, client: ComputeManagementClient, version: str, source: str) -> Any:
    """A version of tiny, copied from another one."""
    body = {
        "location": "local",
        "properties": {
            "publishingProfile": {"targetRegions": [{"name": "local"}]},
            "storageProfile": {"source": {"id": source}},
        },
    }
    poller = client.gallery_image_versions.begin_create_or_update(
        GROUP, GROUP, "tiny", version, body
    )
    return poller.result(LONG)


def await_code(client: ComputeManagementClient, code: str, *, in_progress: int = 0) -> Any:
    """The newest upgrade, once it is in this state, and works on so many instances."""

    def find() -> Any:
        try:
            latest = client.virtual_machine_scale_set_rolling_upgrades.get_latest(GROUP, SET)
        except ResourceNotFoundError:
            return None
        status, progress = latest.properties.running_status, latest.properties.progress
        found = (status.code, progress.in_progress_instance_count)
        return latest if found == (code, in_progress) else None

    return wait_for(find, seconds=LONG, what=f"upgrade that is {code}")


def test_a_scale_set_is_created_from_json_and_its_instances_are_running_and_healthy(
    lab, client, web
):
    assert web.properties.provisioning_state == "Succeeded"
    assert web.sku.capacity == 2
    assert web.etag
    vms = client.virtual_machine_scale_set_vms
    found = list(vms.list(GROUP, SET, expand="instanceView"))
    assert [(each.instance_id, each.name) for each in found] == [("0", "sdk_0"), ("1", "sdk_1")]
    for each in found:
        view = vms.get_instance_view(GROUP, SET, each.instance_id)
        assert "PowerState/running" in {status.code for status in view.statuses}
        assert view.vm_health.status.code == "HealthState/healthy"
        assert each.properties.instance_view.vm_health.status.code == "HealthState/healthy"
        assert each.properties.latest_model_applied
    summary = client.virtual_machine_scale_sets.get_instance_view(GROUP, SET)
    counts = {each.code: each.count for each in summary.virtual_machine.statuses_summary}
    assert counts["ProvisioningState/succeeded"] == 2
    # The same set by the other face: what YAML says of it.
    spec = lab.json("list")
    assert [(row["name"], row["capacity"]) for row in spec] == [(SET, 2)]
    assert "custom data ran" in lab.ask("sdk_0", "cat /var/log/custom-data")


def test_the_pages_patch_enables_automatic_upgrades_and_changes_nothing_else(client, web):
    sets = client.virtual_machine_scale_sets
    before = sets.get(GROUP, SET).as_dict()
    after = sets.begin_update(GROUP, SET, PAGES_PATCH).result(LONG).as_dict()
    automatic = after["properties"]["upgradePolicy"].pop("automaticOSUpgradePolicy")
    assert automatic["enableAutomaticOSUpgrade"] is True
    before["properties"]["upgradePolicy"].pop("automaticOSUpgradePolicy")
    for document in (before, after):
        document.pop("etag")
    assert after == before


def test_a_version_put_into_the_gallery_is_rolled_out_by_itself_and_told_in_the_history(
    lab, server, client, web
):
    before = {name: write_payload(lab, name) for name in ("sdk_0", "sdk_1")}
    made = publish(server, client, "1.1.0", tiny_id(server, "1.1.0", "next"))
    assert made.properties.provisioning_state == "Succeeded"
    latest = await_code(client, "Completed")
    assert latest.properties.progress.successful_instance_count == 2
    history = list(client.virtual_machine_scale_sets.get_os_upgrade_history(GROUP, SET))
    assert [each.properties.started_by for each in history] == ["Platform"]
    assert history[0].properties.running_status.code == "Completed"
    assert history[0].properties.running_status.end_time is not None
    assert history[0].properties.progress.successful_instance_count == 2
    assert lab.versions(SET) == ["1.1.0", "1.1.0"]
    assert {name: checksum(lab, name) for name in before} == before


def test_versions_of_a_platform_image_are_listed_newest_first(client, web):
    images = client.virtual_machine_images
    where = ("local", "labctl", "tiny", "default")
    assert [each.name for each in images.list(*where, top=1, orderby="name desc")] == ["1.1.0"]
    assert {each.name for each in images.list(*where)} == {"1.0.0", "1.1.0"}
    one = images.get(*where, "1.1.0")
    assert one.properties.os_disk_image.operating_system == "Linux"
    assert one.properties.automatic_os_upgrade_properties.automatic_os_upgrade_supported
    assert "labctl" in {each.name for each in images.list_publishers("local")}


def test_a_rolling_upgrade_is_cancelled_and_started_again_through_a_killed_server(
    lab, server, client, web
):
    sets = client.virtual_machine_scale_sets
    upgrades = client.virtual_machine_scale_set_rolling_upgrades
    off = {
        "properties": {
            "upgradePolicy": {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": False}}
        }
    }
    sets.begin_update(GROUP, SET, off).result(LONG)
    publish(server, client, "1.2.0", tiny_id(server, "1.0.0"))
    first = upgrades.begin_start_os_upgrade(GROUP, SET)
    await_code(client, "RollingForward", in_progress=1)
    upgrades.begin_cancel(GROUP, SET).result(LONG)
    assert await_code(client, "Cancelled").properties.running_status.last_action == "Cancel"
    with pytest.raises(HttpResponseError):
        first.result(LONG)
    assert sorted(lab.versions(SET)) == ["1.1.0", "1.2.0"]
    # The second instance follows, although the server dies in the middle of it.
    second = upgrades.begin_start_os_upgrade(GROUP, SET)
    await_code(client, "RollingForward", in_progress=1)
    assert not second.done()
    server.kill()
    server.start()
    second.result(LONG)
    assert second.status() == "Succeeded"
    assert await_code(client, "Completed").properties.progress.failed_instance_count == 0
    assert lab.versions(SET) == ["1.2.0", "1.2.0"]


def test_reimage_gives_a_fresh_os_disk_and_keeps_the_data_disk(lab, client, web):
    sets = client.virtual_machine_scale_sets
    kept, booted = checksum(lab, "sdk_0"), lab.ask("sdk_0", BOOT_ID)
    other = lab.ask("sdk_1", BOOT_ID)
    lab.ask("sdk_0", "touch /etc/mine")
    sets.begin_reimage(GROUP, SET, {"instanceIds": ["0"]}).result(LONG)
    assert lab.ask("sdk_0", BOOT_ID) != booted
    assert lab.ask("sdk_1", BOOT_ID) == other
    assert lab.ask("sdk_0", "test -e /etc/mine || echo fresh") == "fresh"
    assert checksum(lab, "sdk_0") == kept
    # To Azure this one is for all disks; data disks are sacred here.
    sets.begin_reimage_all(GROUP, SET, {"instanceIds": ["0"]}).result(LONG)
    assert checksum(lab, "sdk_0") == kept


def test_power_is_switched_off_and_on(lab, client, web):
    vms = client.virtual_machine_scale_set_vms
    vms.begin_deallocate(GROUP, SET, "1").result(LONG)
    codes = {each.code for each in vms.get_instance_view(GROUP, SET, "1").statuses}
    assert "PowerState/deallocated" in codes
    vms.begin_start(GROUP, SET, "1").result(LONG)
    codes = {each.code for each in vms.get_instance_view(GROUP, SET, "1").statuses}
    assert "PowerState/running" in codes


def test_what_is_wrong_comes_as_the_sdks_own_exceptions(server, client, web):
    with connect(server, "wrong") as stranger, pytest.raises(ClientAuthenticationError) as denied:
        stranger.virtual_machine_scale_sets.get(GROUP, SET)
    assert denied.value.status_code == 401
    sets = client.virtual_machine_scale_sets
    present = sets.get(GROUP, SET)
    with pytest.raises(ResourceModifiedError) as stale:
        sets.begin_update(
            GROUP,
            SET,
            {"tags": {"a": "b"}},
            etag='"stale"',
            match_condition=MatchConditions.IfNotModified,
        )
    assert stale.value.error.code == "PreconditionFailed"
    with pytest.raises(HttpResponseError) as exists:
        sets.begin_create_or_update(
            GROUP, SET, {"location": "local"}, match_condition=MatchConditions.IfMissing
        )
    assert exists.value.status_code == 412
    for name in ("nowhere", "no_such_set"):
        with pytest.raises(ResourceNotFoundError) as missing:
            sets.get(GROUP, name)
        assert missing.value.error.code == "ResourceNotFound"
    with pytest.raises(ResourceNotFoundError) as nobody:
        client.virtual_machine_scale_set_vms.get(GROUP, SET, "77")
    assert nobody.value.error.code
    with pytest.raises(HttpResponseError) as wrong:
        sets.begin_update(GROUP, SET, {"sku": {"capacity": "many"}})
    assert wrong.value.status_code == 400
    assert "capacity" in f"{wrong.value.error.target} {wrong.value.error.message}"
    with pytest.raises(HttpResponseError) as malformed:
        sets.begin_update(GROUP, SET, BytesIO(b'{"sku": '))
    assert malformed.value.error.code == "InvalidRequestContent"
    assert sets.get(GROUP, SET).etag == present.etag


def test_an_etag_that_holds_lets_a_change_through_once(client, web):
    sets = client.virtual_machine_scale_sets
    etag = sets.get(GROUP, SET).etag
    condition = MatchConditions.IfNotModified
    first = sets.begin_update(
        GROUP, SET, {"tags": {"try": "1"}}, etag=etag, match_condition=condition
    )
    assert first.result(LONG).tags == {"try": "1"}
    with pytest.raises(ResourceModifiedError):
        sets.begin_update(GROUP, SET, {"tags": {"try": "2"}}, etag=etag, match_condition=condition)


def test_scaling_in_by_patch_and_deletion_are_awaited_by_the_sdk(lab, client, web):
    sets = client.virtual_machine_scale_sets
    sets.begin_update(GROUP, SET, {"sku": {"capacity": 1}}).result(LONG)
    assert len(list(client.virtual_machine_scale_set_vms.list(GROUP, SET))) == 1
    assert len(lab.domains(SET)) == 1
    sets.begin_delete(GROUP, SET).result(LONG)
    assert lab.domains(SET) == []
    assert list(sets.list(GROUP)) == []
    with pytest.raises(ResourceNotFoundError):
        sets.get(GROUP, SET)
