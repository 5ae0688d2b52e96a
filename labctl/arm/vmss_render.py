"""A spec as the document that Azure's clients know."""

import base64
import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from labctl.arm import application_health
from labctl.arm.durations import format_iso
from labctl.arm.errors import Document
from labctl.arm.extensions import Secrets, render_extensions
from labctl.arm.ids import ResourceId
from labctl.arm.labctl_part import pick_plain
from labctl.arm.sizes import name_size
from labctl.arm.webhooks import mask_webhooks
from labctl.model.machine import GIB, DataDisk
from labctl.model.quantity import format_size
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade_policy import UpgradePolicy

TYPE = "Microsoft.Compute/virtualMachineScaleSets"
KEPT_PROFILE = ("properties", "virtualMachineProfile")
_KEY_PATH = "/home/{user}/.ssh/authorized_keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a document says beside the spec.

    `kept` is what `read_scale_set` gave: a sparse document, in which data disks, extensions and
    public keys are objects by their name.
    """

    id: ResourceId
    kept: Document
    image: Document  # the reference as ARM writes it
    probe_id: str | None = None  # of health.probe, where a load balancer holds it
    provisioning_state: str = "Succeeded"
    unique_id: str = ""
    created_at: datetime | None = None


def find_kept(kept: Document, *path: str) -> object:
    """What was kept at a path below `virtualMachineProfile`."""
    value: object = kept
    for step in (*KEPT_PROFILE, *path):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def render_scale_set(
    spec: ScaleSetSpec, shown: Shown, *, secrets: Secrets = Secrets.HIDDEN
) -> Document:
    """The whole resource, without its etag."""
    document: Document = {
        "id": str(shown.id),
        "name": shown.id.name,
        "type": TYPE,
        "location": spec.region,
        **copy.deepcopy(shown.kept),
        "sku": {
            "tier": "Standard",
            **_mapping(shown.kept.get("sku")),
            "name": name_size(spec.size, _mapping(shown.kept.get("sku")).get("name")),
            "capacity": spec.capacity,
        },
    }
    if spec.zones:
        document["zones"] = list(spec.zones)
    properties = _child(document, "properties")
    properties |= {
        "orchestrationMode": "Uniform",
        "platformFaultDomainCount": spec.fault_domain_count,
        "provisioningState": shown.provisioning_state,
        "upgradePolicy": _mapping(properties.get("upgradePolicy"))
        | _render_upgrade_policy(spec.upgrade_policy),
        "automaticRepairsPolicy": {
            "enabled": spec.automatic_repairs_policy.enabled,
            "gracePeriod": format_iso(spec.automatic_repairs_policy.grace_period),
            "repairAction": spec.automatic_repairs_policy.repair_action.value,
        },
        "scaleInPolicy": _mapping(properties.get("scaleInPolicy"))
        | {"rules": [rule.value for rule in spec.scale_in_policy.rules]},
    }
    if shown.unique_id:
        properties["uniqueId"] = shown.unique_id
    if shown.created_at is not None:
        stamp = shown.created_at.astimezone(UTC).isoformat()
        properties["timeCreated"] = stamp.replace("+00:00", "Z")
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    part = pick_plain(dump, is_windows=spec.is_windows)
    profile = _child(properties, "virtualMachineProfile")
    _render_os_profile(profile, spec, secrets)
    _render_storage(profile, spec, shown, part)
    _render_network(profile, spec, shown, part, dump)
    _render_extension_profile(profile, spec, secrets, part)
    if secrets is Secrets.HIDDEN:
        mask_webhooks(part)
    if part:
        properties["labctl"] = part
    return document


def _render_upgrade_policy(policy: UpgradePolicy) -> Document:
    rolling, automatic = policy.rolling_upgrade_policy, policy.automatic_os_upgrade_policy
    return {
        "mode": policy.mode.value,
        "rollingUpgradePolicy": {
            "maxBatchInstancePercent": rolling.max_batch_instance_percent,
            "maxUnhealthyInstancePercent": rolling.max_unhealthy_instance_percent,
            "maxUnhealthyUpgradedInstancePercent": rolling.max_unhealthy_upgraded_instance_percent,
            "pauseTimeBetweenBatches": format_iso(rolling.pause_time_between_batches),
            "prioritizeUnhealthyInstances": rolling.prioritize_unhealthy_instances,
            "enableCrossZoneUpgrade": rolling.enable_cross_zone_upgrade,
            "maxSurge": rolling.max_surge,
            "rollbackFailedInstancesOnPolicyBreach": (
                rolling.rollback_failed_instances_on_policy_breach
            ),
        },
        "automaticOSUpgradePolicy": {
            "enableAutomaticOSUpgrade": automatic.enable_automatic_os_upgrade,
            "useRollingUpgradePolicy": automatic.use_rolling_upgrade_policy,
            "disableAutomaticRollback": automatic.disable_automatic_rollback,
        },
    }


def _render_os_profile(profile: Document, spec: ScaleSetSpec, secrets: Secrets) -> None:
    os_profile = _child(profile, "osProfile")
    os_profile.setdefault("computerNamePrefix", spec.name[:15])
    linux = _mapping(os_profile.pop("linuxConfiguration", None))
    windows = _mapping(os_profile.pop("windowsConfiguration", None))
    if spec.windows_configuration is not None:
        enabled = spec.windows_configuration.enable_automatic_updates
        os_profile["windowsConfiguration"] = windows | {"enableAutomaticUpdates": enabled}
    else:
        paths = _mapping(_mapping(linux.get("ssh")).get("publicKeys"))
        user = os_profile.get("adminUsername")
        path = _KEY_PATH.format(user=user if isinstance(user, str) and user else "labctl")
        keys = [{"path": paths.get(key, path), "keyData": key} for key in spec.ssh_keys]
        linux |= {"disablePasswordAuthentication": True, "ssh": {"publicKeys": keys}}
        os_profile["linuxConfiguration"] = linux
    data = spec.custom_data
    if data is not None and data.inline is not None and secrets is not Secrets.HIDDEN:
        os_profile["customData"] = base64.b64encode(data.inline.encode()).decode()


def _render_storage(profile: Document, spec: ScaleSetSpec, shown: Shown, part: Document) -> None:
    storage = _child(profile, "storageProfile")
    storage["imageReference"] = copy.deepcopy(shown.image)
    disk: Document = {"createOption": "FromImage"} | _mapping(storage.get("osDisk"))
    disk["osType"] = "Windows" if spec.is_windows else "Linux"
    if spec.os_disk.size is not None:
        disk["diskSizeGB"] = round_up(spec.os_disk.size)
        if spec.os_disk.size % GIB:
            part["osDisk"] = {"size": format_size(spec.os_disk.size)}
    storage["osDisk"] = disk
    kept = _mapping(storage.get("dataDisks"))
    luns = _choose_luns(spec.data_disks, kept)
    storage["dataDisks"] = [
        {"createOption": "Empty"}
        | {"name": each.name}
        | _mapping(kept.get(each.name))
        | {"lun": lun, "diskSizeGB": round_up(each.size)}
        for each, lun in zip(spec.data_disks, luns, strict=True)
    ]
    beside = [entry for each in spec.data_disks if len(entry := _render_exact(each)) > 1]
    if beside:
        part["dataDisks"] = beside


def _choose_luns(disks: tuple[DataDisk, ...], kept: Document) -> list[int]:
    """Those that the client gave; for others the smallest that are free."""
    wished = [_mapping(kept.get(disk.name)).get("lun") for disk in disks]
    taken = {lun for lun in wished if isinstance(lun, int)}
    found: list[int] = []
    for wish in wished:
        if isinstance(wish, int) and wish not in found:
            found.append(wish)
            continue
        found.append(next(free for free in range(2 * len(disks)) if free not in taken))
        taken.add(found[-1])
    return found


def _render_exact(disk: DataDisk) -> Document:
    found: Document = {"name": disk.name}
    if disk.size % GIB:
        found["size"] = format_size(disk.size)
    if disk.file_system is not None:
        found["fileSystem"] = disk.file_system
    if disk.mount_point is not None:
        found["mountPoint"] = disk.mount_point
    return found


def _render_network(
    profile: Document, spec: ScaleSetSpec, shown: Shown, part: Document, dump: Document
) -> None:
    network = _mapping(profile.pop("networkProfile", None))
    if spec.health.application_health is None:
        network.pop("healthProbe", None)
    exact: Document = {}
    if spec.health.probe is not None and shown.probe_id is not None:
        network["healthProbe"] = {"id": shown.probe_id}
    elif spec.health.probe is not None:
        exact["probe"] = _mapping(dump["health"])["probe"]
    elif spec.health.application_health is not None:
        lengths = application_health.render_exact(spec.health.application_health)
        if lengths:
            exact["applicationHealth"] = lengths
    if exact:
        part["health"] = exact
    if network:
        profile["networkProfile"] = network


def _render_extension_profile(
    profile: Document, spec: ScaleSetSpec, secrets: Secrets, part: Document
) -> None:
    extensions = _child(profile, "extensionProfile")
    entries, beside = render_extensions(spec, extensions.get("extensions"), secrets)
    extensions["extensions"] = entries
    extensions["extensionsTimeBudget"] = format_iso(spec.extensions_time_budget)
    if beside:
        part["extensions"] = beside


def round_up(size: int) -> int:
    """Bytes as whole GiB."""
    return -(-size // GIB)


def _child(parent: Document, key: str) -> Document:
    """The object below `parent`, made where there is none."""
    value = parent.get(key)
    if not isinstance(value, dict):
        value = parent[key] = {}
    return cast("Document", value)


def _mapping(value: object) -> Document:
    return value if isinstance(value, dict) else {}
