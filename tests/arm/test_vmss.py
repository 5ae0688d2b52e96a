"""Documents as Azure's clients send them, and what a lab makes of them."""

import base64
import copy
import gzip
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from labctl.arm.custom_script import HIDDEN_SCRIPTS
from labctl.arm.errors import ArmError
from labctl.arm.vmss import (
    Secrets,
    Shown,
    find_kept,
    merge_document,
    read_scale_set,
    render_scale_set,
)
from labctl.model.machine import GIB, MIB, MachineSize
from labctl.model.upgrade_policy import UpgradeMode
from tests.arm.specs import KEY
from tests.arm.test_vmss_round_trip import ID, PROBE_ID, Lookup

PROFILE = "properties.virtualMachineProfile"
SCRIPT = "#!/bin/sh\necho 'grüße'\r\n"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def make_body() -> dict[str, Any]:
    """What the SDK sends to make a scale set, with everything that the page shows."""
    return {
        "location": "East US",
        "tags": {"team": "web"},
        "sku": {"name": "Standard_B1s", "capacity": 5, "tier": "Standard"},
        "properties": {
            "orchestrationMode": "Uniform",
            "overprovision": False,
            "singlePlacementGroup": True,
            "upgradePolicy": {
                "mode": "Rolling",
                "automaticOSUpgradePolicy": {
                    "enableAutomaticOSUpgrade": True,
                    "useRollingUpgradePolicy": True,
                    "disableAutomaticRollback": False,
                },
                "rollingUpgradePolicy": {
                    "maxBatchInstancePercent": 20,
                    "pauseTimeBetweenBatches": "PT10S",
                    "maxSurge": False,
                },
            },
            "automaticRepairsPolicy": {
                "enabled": True,
                "gracePeriod": "PT10M",
                "repairAction": "Reimage",
            },
            "virtualMachineProfile": {
                "osProfile": {
                    "computerNamePrefix": "ss",
                    "adminUsername": "lab",
                    "customData": "IyEvYmluL3NoCg==",
                },
                "storageProfile": {
                    "imageReference": {
                        "publisher": "lab",
                        "offer": "debian",
                        "sku": "12",
                        "version": "latest",
                    },
                    "osDisk": {"createOption": "FromImage", "caching": "ReadWrite"},
                    "dataDisks": [{"lun": 0, "createOption": "Empty", "diskSizeGB": 1}],
                },
                "extensionProfile": {
                    "extensionsTimeBudget": "PT1H",
                    "extensions": [
                        {
                            "name": "HealthExtension",
                            "properties": {
                                "publisher": "Microsoft.ManagedServices",
                                "type": "ApplicationHealthLinux",
                                "typeHandlerVersion": "2.0",
                                "autoUpgradeMinorVersion": True,
                                "settings": {
                                    "protocol": "http",
                                    "port": 8080,
                                    "requestPath": "/health",
                                },
                                "provisionAfterExtensions": ["cs"],
                            },
                        },
                        {
                            "name": "cs",
                            "properties": {
                                "publisher": "Microsoft.Azure.Extensions",
                                "type": "CustomScript",
                                "typeHandlerVersion": "2.1",
                                "autoUpgradeMinorVersion": True,
                                "settings": {"commandToExecute": "systemctl start web"},
                            },
                        },
                    ],
                },
                "networkProfile": {"healthProbe": {"id": PROBE_ID}},
            },
        },
    }


def _read(document, current=None, rendered=None):
    return read_scale_set(
        document, name="web", current=current, rendered=rendered, references=Lookup()
    )


def _show(reading, **more: Any) -> dict[str, Any]:
    image = find_kept(reading.kept, "storageProfile", "imageReference")
    assert isinstance(image, dict)
    return render_scale_set(reading.spec, Shown(id=ID, kept=reading.kept, image=image, **more))


def _change(path: str, value: Any, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body with another value at a path; numbers are places in arrays."""
    body = make_body() if body is None else body
    *above, last = path.split(".")
    place: Any = body
    for step in above:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    place[int(last) if last.isdigit() else last] = value
    return body


def _says(document: Any, wanted: Any) -> bool:
    """Does the document say all that is wanted? Entries of arrays may be in another order."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(
            key in document and _says(document[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(document) == len(wanted) and all(
            any(_says(each, one) for each in document) for one in wanted
        )
    return document == wanted


def _fault(path: str, value: Any) -> ArmError:
    with pytest.raises(ArmError) as caught:
        _read(_change(path, value))
    return caught.value


def test_a_body_of_the_sdk_becomes_a_spec():
    spec = _read(make_body()).spec
    assert (spec.name, spec.region, spec.capacity) == ("web", "eastus", 5)
    assert spec.size == MachineSize(vcpus=1, memory=f"{GIB}B")
    assert (spec.image.definition, spec.image.version) == ("debian", "latest")
    assert [(disk.name, disk.size) for disk in spec.data_disks] == [("lun0", GIB)]
    assert spec.custom_data is not None
    assert spec.custom_data.inline == "#!/bin/sh\n"
    assert [each.script for each in spec.extensions] == ["#!/bin/sh\nsystemctl start web\n"]
    assert spec.extensions_time_budget == timedelta(hours=1)
    assert spec.health.application_health is not None
    assert spec.health.application_health.is_rich
    assert spec.upgrade_policy.mode is UpgradeMode.ROLLING


def test_a_body_of_the_sdk_comes_back_with_all_it_said_but_its_secrets():
    wanted = make_body()
    del wanted["properties"]["virtualMachineProfile"]["osProfile"]["customData"]
    wanted["location"] = "eastus"
    document = _show(_read(make_body()))
    assert _says(document, wanted)
    again = _read(merge_document(document, document), _read(make_body()).spec, document)
    assert again.spec == _read(make_body()).spec
    assert _show(again) == document


def test_where_a_create_does_not_say_it_the_rolling_policy_is_not_used():
    body = make_body()
    del body["properties"]["upgradePolicy"]["automaticOSUpgradePolicy"]["useRollingUpgradePolicy"]
    policy = _read(body).spec.upgrade_policy.automatic_os_upgrade_policy
    assert not policy.use_rolling_upgrade_policy


def test_names_of_properties_may_be_in_any_case():
    body = _change("properties.UPGRADEPOLICY", make_body()["properties"]["upgradePolicy"])
    del body["properties"]["upgradePolicy"]
    assert _read(body).spec == _read(make_body()).spec


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties.orchestrationMode", "Flexible"),
        ("identity", {"type": "SystemAssigned"}),
        (f"{PROFILE}.osProfile.adminPassword", "hunter2!"),
        (f"{PROFILE}.securityProfile.securityType", "TrustedLaunch"),
        (f"{PROFILE}.storageProfile.osDisk.createOption", "Attach"),
        (f"{PROFILE}.storageProfile.osDisk.managedDisk.diskEncryptionSet", {"id": "/x"}),
        (f"{PROFILE}.storageProfile.dataDisks[0].createOption", "FromImage"),
        (f"{PROFILE}.userData", "eA=="),
        (f"{PROFILE}.scheduledEventsProfile", {"terminateNotificationProfile": {"enable": True}}),
        (f"{PROFILE}.somethingWithPassword", "x"),
    ],
)
def test_what_would_be_silently_wrong_is_refused_with_its_path(path, value):
    fault = _fault(path.replace("[", ".").replace("]", ""), value)
    assert (fault.status, fault.code, fault.target) == (400, "NotSupportedInLab", path)
    assert "hunter2" not in str(fault.document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{PROFILE}.priority", "Spot"),
        (f"{PROFILE}.evictionPolicy", "Delete"),
        (f"{PROFILE}.securityProfile.securityType", "Standard"),
        (f"{PROFILE}.networkProfile.networkInterfaceConfigurations", [{"name": "nic"}]),
        ("properties.overprovision", True),
        ("properties.somethingNew", {"a": [1, None]}),
        ("plan", {"name": "p"}),
        ("tags", {"secretary": "Ada", "token-free": "yes"}),
    ],
)
def test_what_is_harmless_is_kept_and_given_back(path, value):
    assert _says(_show(_read(_change(path, copy.deepcopy(value)))), _change(path, value, {}))


@pytest.mark.parametrize(
    ("path", "value", "target"),
    [
        ("sku.capacity", -1, "sku.capacity"),
        ("sku.capacity", "many", "sku.capacity"),
        ("sku.name", "Standard_Huge", "sku.name"),
        ("location", None, "location"),
        ("properties.upgradePolicy.mode", "Sometimes", "properties.upgradePolicy.mode"),
        (
            "properties.upgradePolicy.rollingUpgradePolicy.pauseTimeBetweenBatches",
            "10s",
            "properties.upgradePolicy.rollingUpgradePolicy.pauseTimeBetweenBatches",
        ),
        (f"{PROFILE}.osProfile.customData", "%", f"{PROFILE}.osProfile.customData"),
        (f"{PROFILE}.osProfile.customData", "/w==", f"{PROFILE}.osProfile.customData"),
        (f"{PROFILE}.osProfile.customData", "YQBi", f"{PROFILE}.osProfile.customData"),
        ("properties.labctl.capacity", 3, "properties.labctl.capacity"),
        ("properties.labctl.timeouts", {"boot": 5}, "properties.labctl.timeouts.boot"),
        ("properties.labctl.network", {"kind": "x"}, "properties.labctl.network.kind"),
        (
            "properties.labctl.dataDisks",
            [{"name": "other", "mountPoint": "/x"}],
            "properties.labctl.dataDisks[0].name",
        ),
        (
            f"{PROFILE}.extensionProfile.extensions.1.properties.provisionAfterExtensions",
            ["nobody"],
            f"{PROFILE}.extensionProfile.extensions[1].properties.provisionAfterExtensions[0]",
        ),
    ],
)
def test_every_fault_has_the_path_of_its_value(path, value, target):
    fault = _fault(path, value)
    assert (fault.status, fault.target) == (400, target)
    assert fault.code == "InvalidParameter"


def test_all_faults_are_told_at_once():
    body = _change("sku.capacity", "x", _change("properties.orchestrationMode", "Flexible"))
    _change("properties.upgradePolicy.mode", "Sometimes", body)
    with pytest.raises(ArmError) as caught:
        _read(body)
    targets = {detail.target for detail in caught.value.details}
    mode = "properties.upgradePolicy.mode"
    assert targets == {"sku.capacity", "properties.orchestrationMode", mode}
    assert len(caught.value.details) == 3


def test_what_azure_refuses_too_is_refused_in_its_words():
    body = make_body()
    profile = body["properties"]["virtualMachineProfile"]
    profile["extensionProfile"]["extensions"] = []
    del profile["networkProfile"]
    body["properties"]["automaticRepairsPolicy"]["enabled"] = False
    for mode, begin in (("Rolling", "Rolling Upgrade mode"), ("Manual", "Automatic OS Upgrade")):
        body["properties"]["upgradePolicy"]["mode"] = mode
        with pytest.raises(ArmError, match="not supported for this Virtual Machine") as caught:
            _read(body)
        assert caught.value.code == "BadRequest"
        assert caught.value.message.startswith(begin)


def test_an_image_that_is_not_there_is_told_as_the_lookup_tells_it():
    fault = _fault(f"{PROFILE}.storageProfile.imageReference", {"id": "/x"})
    assert (fault.status, fault.code) == (404, "ImageNotFound")


def _custom_script(settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    properties = {
        "publisher": "Microsoft.OSTCExtensions",
        "type": "CustomScriptForLinux",
        "typeHandlerVersion": "1.5",
        "settings": settings,
        **more,
    }
    path = f"{PROFILE}.extensionProfile.extensions"
    return _change(path, [make_body_extension(), {"name": "cs", "properties": properties}])


def make_body_extension() -> dict[str, Any]:
    """The health extension."""
    extensions = make_body()["properties"]["virtualMachineProfile"]["extensionProfile"]
    found: dict[str, Any] = extensions["extensions"][0]
    return found


def _entry_of(document: dict[str, Any], name: str = "cs") -> dict[str, Any]:
    profile = document["properties"]["virtualMachineProfile"]["extensionProfile"]
    return next(each["properties"] for each in profile["extensions"] if each["name"] == name)


@pytest.mark.parametrize(
    "sent", [_encode(SCRIPT), base64.b64encode(gzip.compress(SCRIPT.encode(), mtime=0)).decode()]
)
def test_a_custom_script_comes_back_byte_for_byte(sent):
    reading = _read(_custom_script({"script": sent, "timestamp": 7}))
    assert reading.spec.extensions[0].script == SCRIPT
    assert reading.spec.extensions[0].settings == {"timestamp": 7}
    assert _entry_of(_show(reading))["settings"] == {"script": sent, "timestamp": 7}


@pytest.mark.parametrize(
    ("key", "sent", "stored"),
    [
        ("commandToExecute", "echo hunter2", "echo hunter2"),
        ("script", _encode("#!/bin/bash\necho hunter2"), "#!/bin/bash\necho hunter2"),
    ],
)
def test_a_protected_command_is_run_by_a_script_that_does_not_hold_it(key, sent, stored):
    reading = _read(_custom_script({}, protectedSettings={key: sent}))
    extension = reading.spec.extensions[0]
    assert extension.script == HIDDEN_SCRIPTS[key]
    assert extension.protected_settings == {key: stored}
    document = _show(reading)
    assert sent not in str(document)
    # A client sends back what it got; without the secret, which stays as it was.
    for body in (document, _custom_script({"timestamp": 1})):
        again = _read(merge_document(document, body), reading.spec, document)
        assert again.spec.extensions[0].protected_settings == {key: stored}
    image = {"id": "/x"}
    shown = Shown(id=ID, kept=reading.kept, image=image)
    revealed = render_scale_set(reading.spec, shown, secrets=Secrets.REVEALED)
    assert _entry_of(revealed)["protectedSettings"] == {key: sent}


@pytest.mark.parametrize(
    ("settings", "target", "code"),
    [
        ({}, "properties", "InvalidParameter"),
        ({"script": "x", "commandToExecute": "y"}, "properties", "InvalidParameter"),
        ({"script": "H4sI"}, "properties.settings.script", "InvalidParameter"),
        (
            {"commandToExecute": "x", "fileUris": ["https://x.example/a"]},
            "properties.settings.fileUris",
            "NotSupportedInLab",
        ),
    ],
)
def test_custom_scripts_that_cannot_be_had_are_refused(settings, target, code):
    with pytest.raises(ArmError) as caught:
        _read(_custom_script(settings))
    extension = f"{PROFILE}.extensionProfile.extensions[1]"
    assert (caught.value.code, caught.value.target) == (code, f"{extension}.{target}")


def test_a_bomb_of_gzip_is_not_unpacked():
    bomb = base64.b64encode(gzip.compress(bytes(64 * MIB))).decode()
    with pytest.raises(ArmError, match="more than 1048576 bytes"):
        _read(_custom_script({"script": bomb}))


def test_the_health_extension_takes_the_place_of_the_probe_and_gives_it_back():
    reading = _read(make_body())
    document = _show(reading)
    body = {"properties": {"virtualMachineProfile": {"extensionProfile": {"extensions": []}}}}
    found = _read(merge_document(document, body), reading.spec, document)
    assert found.spec.health.application_health is None
    assert found.spec.health.probe is not None
    assert found.spec.health.probe.request_path == "/lb"
    shown = _show(found, probe_id=PROBE_ID)
    assert shown["properties"]["virtualMachineProfile"]["networkProfile"] == {
        "healthProbe": {"id": PROBE_ID}
    }
    assert "labctl" not in shown["properties"]


def test_an_id_takes_the_place_of_a_probe_that_the_yaml_has():
    reading = _read(make_body())
    probe = {"protocol": "tcp", "port": 22}
    body = _change("properties.labctl.health.probe", probe)
    profile = body["properties"]["virtualMachineProfile"]
    del profile["networkProfile"]
    profile["extensionProfile"]["extensions"] = []
    reading = _read(body)
    document = _show(reading)
    assert document["properties"]["labctl"]["health"]["probe"] == probe
    patch = _change(f"{PROFILE}.networkProfile.healthProbe.id", PROBE_ID, {})
    found = _read(merge_document(document, patch), reading.spec, document)
    assert found.spec.health.probe is not None
    assert found.spec.health.probe.request_path == "/lb"


def test_null_removes_and_gives_the_default_back():
    reading = _read(_change("properties.labctl.timeouts", {"boot": "3m"}))
    document = _show(reading)
    patch = _change("properties.labctl.timeouts", None, {})
    _change("properties.automaticRepairsPolicy", None, patch)
    _change(f"{PROFILE}.osProfile.customData", None, patch)
    spec = _read(merge_document(document, patch), reading.spec, document).spec
    assert spec.timeouts.boot is None
    assert not spec.automatic_repairs_policy.enabled
    assert spec.custom_data is None


def test_a_new_size_of_a_disk_in_gibibytes_wins_over_the_exact_old_one():
    path = f"{PROFILE}.storageProfile"
    body = _change("properties.labctl.dataDisks", [{"name": "lun0", "size": "700MiB"}])
    reading = _read(body)
    assert reading.spec.data_disks[0].size == 700 * MIB
    document = _show(reading)
    for gibibytes, size in ((1, 700 * MIB), (2, 2 * GIB)):
        disks = [{"lun": 0, "diskSizeGB": gibibytes}]
        patch = _change(f"{path}.dataDisks", disks, {})
        found = _read(merge_document(document, patch), reading.spec, document)
        assert [disk.size for disk in found.spec.data_disks] == [size]


def test_a_disk_that_is_taken_away_takes_along_what_labctl_knew_of_it():
    path = f"{PROFILE}.storageProfile.dataDisks"
    body = _change("properties.labctl.dataDisks", [{"name": "lun0", "mountPoint": "/srv"}])
    reading = _read(_change("properties.labctl.dataDisks.0.fileSystem", "ext4", body))
    document = _show(reading)
    found = _read(merge_document(document, _change(path, [], {})), reading.spec, document)
    assert found.spec.data_disks == ()


def test_names_of_disks_that_are_too_long_for_a_serial_number_are_only_shown():
    path = f"{PROFILE}.storageProfile.dataDisks.0.name"
    reading = _read(_change(path, "web_disk2_0123456789abcdef"))
    assert reading.spec.data_disks[0].name == "lun0"
    document = _show(reading)
    shown = document["properties"]["virtualMachineProfile"]["storageProfile"]["dataDisks"][0]
    assert shown["name"] == "web_disk2_0123456789abcdef"
    assert _read(merge_document(document, document), reading.spec, document).spec == reading.spec


@pytest.mark.parametrize(
    ("shown", "sent", "wanted"),
    [
        ({"offer": "a", "version": "1.0.0"}, {"version": "latest"}, {"offer": "a"}),
        ({"offer": "a"}, {"id": "/x"}, {"id": "/x"}),
        ({"id": "/x"}, {"offer": "a"}, {"offer": "a"}),
        ({"id": "/x/versions/1.0.0"}, {"version": "latest"}, {"id": "/x"}),
        ({"id": "/x"}, {"version": "1.0.0"}, {"id": "/x/versions/1.0.0"}),
    ],
)
def test_an_image_reference_changes_its_form_as_a_whole(shown, sent, wanted):
    path = f"{PROFILE}.storageProfile.imageReference"
    merged: Any = merge_document(_change(path, shown, {}), _change(path, sent, {}))
    found = merged["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]
    if "offer" in wanted and "offer" in shown:
        wanted = {**wanted, "version": "latest"}
    assert found == wanted


def test_tags_are_replaced_as_a_whole():
    assert merge_document({"tags": {"a": "1"}}, {"tags": {"b": "2"}}) == {"tags": {"b": "2"}}


def test_public_keys_come_back_with_their_paths():
    keys = [{"path": "/home/lab/.ssh/authorized_keys", "keyData": f"{KEY}\n"}]
    reading = _read(_change(f"{PROFILE}.osProfile.linuxConfiguration.ssh.publicKeys", keys))
    assert reading.spec.ssh_keys == (KEY,)
    linux = _show(reading)["properties"]["virtualMachineProfile"]["osProfile"]["linuxConfiguration"]
    assert linux["ssh"]["publicKeys"] == [{**keys[0], "keyData": KEY}]


def test_windows_takes_what_its_clients_must_send_and_forgets_the_password():
    body = _change(f"{PROFILE}.osProfile.windowsConfiguration", {"enableAutomaticUpdates": False})
    _change(f"{PROFILE}.osProfile.adminPassword", "hunter2!", body)
    body["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"].pop()
    body["properties"]["virtualMachineProfile"]["osProfile"].pop("customData")
    _change("properties.labctl.sshKeys", [KEY], body)
    reading = _read(body)
    assert reading.spec.is_windows
    assert reading.spec.ssh_keys == (KEY,)
    document = _show(reading)
    assert "hunter2" not in str(document) + str(reading)
    assert _entry_of(document, "HealthExtension")["type"] == "ApplicationHealthWindows"
    assert _read(merge_document(document, document), reading.spec, document).spec == reading.spec


HOOK = {"drain": {"command": ["/bin/drain"]}}


@pytest.mark.parametrize(
    ("path", "value", "target"),
    [
        ("properties.labctl.upgradePolicy.hooks", HOOK, ".upgradePolicy.hooks.drain.command"),
        (
            "properties.labctl.upgradePolicy.approval",
            {"webhook": {"url": "https://x.example", "secretFile": "/etc/shadow"}},
            ".upgradePolicy.approval.webhook.secretFile",
        ),
        (
            "properties.labctl.notifications",
            [{"name": "x", "url": "http://127.0.0.1:1/", "allowHttp": True}],
            ".notifications[0].url",
        ),
    ],
)
def test_what_reaches_into_the_host_is_told_once_and_not_for_what_is_there_already(
    path, value, target
):
    reading = _read(_change(path, value))
    assert reading.host_access == (f"properties.labctl{target}",)
    document = _show(reading)
    scaled = merge_document(document, {"sku": {"capacity": 9}})
    assert _read(scaled, reading.spec, document).host_access == ()


def test_new_variables_of_a_playbook_reach_into_the_host():
    def make(settings):
        own = {"playbook": "/srv/site.yml", "settings": settings}
        more = {"publisher": "labctl", "type": "Playbook"}
        return _custom_script(own, **more)

    reading = _read(make({"a": 1}))
    assert len(reading.host_access) == 1
    document = _show(reading)
    again = _read(merge_document(document, make({"a": 1})), reading.spec, document)
    assert again.host_access == ()
    changed = _read(merge_document(document, make({"a": "{{ x }}"})), reading.spec, document)
    assert len(changed.host_access) == 1


def test_paths_of_files_are_not_taken():
    body = _custom_script({"file": "/etc/shadow"}, publisher="labctl", type="Script")
    with pytest.raises(ArmError) as caught:
        _read(body)
    assert any("files of the host" in each.message for each in caught.value.details)


@pytest.mark.parametrize(
    "given", ["T0K3N", ["T0K3N"], {"T0K3N": 1}, {"commandToExecute": ["T0K3N"]}]
)
def test_no_error_repeats_protected_settings(given):
    with pytest.raises(ArmError) as caught:
        _read(_custom_script({}, protectedSettings=given))
    assert "T0K3N" not in str(caught.value.document)


def test_secrets_of_one_host_are_not_sent_to_another():
    def make(url, **more):
        own = {"url": url, "sha256": "0" * 64}
        return _custom_script(own, publisher="labctl", type="Url", **more)

    reading = _read(make("https://a.example/x", protectedSettings={"bearerToken": "t"}))
    document = _show(reading)
    same = merge_document(document, make("https://a.example/y"))
    assert _read(same, reading.spec, document).spec.extensions[0].protected_settings
    with pytest.raises(ArmError, match="must be given again"):
        _read(merge_document(document, make("https://b.example/x")), reading.spec, document)


def test_a_client_keeps_its_name_of_a_size_while_it_means_the_size():
    reading = _read(make_body())
    assert _show(reading)["sku"]["name"] == "Standard_B1s"
    other = reading.spec.model_copy(update={"size": MachineSize(vcpus=3, memory="100MiB")})
    assert _show(replace(reading, spec=other))["sku"]["name"] == "Lab_3_100"


def test_urls_of_webhooks_are_masked_and_stay_when_the_mask_is_sent_back():
    secret = "https://hooks.example/T0K3N?k=1"
    body = _change("properties.labctl.notifications", [{"name": "ops", "url": secret}])
    approval = {"webhook": {"url": f"{secret}2"}}
    reading = _read(_change("properties.labctl.upgradePolicy", {"approval": approval}, body))
    document = _show(reading)
    assert "T0K3N" not in str(document)
    masked = document["properties"]["labctl"]["notifications"][0]
    more = [{"name": "other", "url": "https://x.example/"}, masked]
    patch = _change("properties.labctl.notifications", more, {})
    found = _read(merge_document(document, patch), reading.spec, document).spec
    assert [each.url for each in found.notifications] == ["https://x.example/", secret]
    assert found.upgrade_policy == reading.spec.upgrade_policy


@pytest.mark.parametrize("value", ["\ud800", float("nan"), {"\udfff": 1}])
def test_what_could_not_be_written_down_again_is_refused(value):
    with pytest.raises(ArmError) as caught:
        merge_document({}, {"tags": {"a": value}})
    assert caught.value.code == "InvalidRequestContent"


@pytest.mark.parametrize(
    "path", ["properties.labctl.dataDisks", f"{PROFILE}.storageProfile.dataDisks", "zones", "tags"]
)
@pytest.mark.parametrize("kind", [list, dict])
def test_more_entries_than_any_lab_has_are_refused_before_they_are_compared(path, kind):
    entries = [{"lun": each, "name": f"d{each}"} for each in range(1001)]
    body = _change(path, entries if kind is list else {str(each): "" for each in range(1001)})
    with pytest.raises(ArmError, match="more than 1000 entries"):
        merge_document({}, body)
