"""The document of one instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labctl.arm.errors import Document, invalid, not_supported
from labctl.arm.ids import ResourceId
from labctl.arm.instance_views import (
    Judged,
    find_extension_statuses,
    name_computer,
    name_data_disk,
    name_os_disk,
    render_extension_view,
    render_instance_view,
)
from labctl.arm.statuses import ProvisioningState, format_moment
from labctl.model.machine import GIB

Json = Any  # what json.loads gives

# What a client may send back as it got it; what it says now is not a wish.
_TOLD = frozenset(
    {
        "instanceView",
        "latestModelApplied",
        "provisioningState",
        "vmId",
        "timeCreated",
        "modelDefinitionApplied",
        "labctl",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What all instances of a scale set have in common."""

    id: ResourceId  # of the scale set
    location: str
    sku: Mapping[str, Json]  # name and tier
    image: Mapping[str, Json]  # the scale set's imageReference
    profile: Mapping[str, Json]  # the scale set's virtualMachineProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What a client wants an instance to be protected from; None: as it is."""

    scale_in: bool | None = None
    actions: bool | None = None


def render_instance(
    judged: Judged, frame: Frame, *, with_view: bool = False, with_name_of_type: bool = True
) -> Document:
    """One instance as it is."""
    instance = judged.instance
    identifier = frame.id.child("virtualMachines", str(instance.ordinal))
    properties: Document = {
        "latestModelApplied": judged.has_latest_model,
        "modelDefinitionApplied": "VirtualMachineScaleSet",
        "vmId": judged.uuid,
        "provisioningState": judged.state.value,
        "timeCreated": format_moment(instance.created_at),
        "hardwareProfile": {"vmSize": frame.sku.get("name", "")},
        "storageProfile": _render_storage(judged, frame),
        "osProfile": _render_os(judged, frame),
        "networkProfileConfiguration": dict(frame.profile.get("networkProfile") or {}),
        "protectionPolicy": {
            "protectFromScaleIn": instance.protect_from_scale_in,
            "protectFromScaleSetActions": instance.protect_from_scale_set_actions,
        },
        "labctl": {
            "name": instance.name,
            "modelRevision": instance.current.model_revision,
            "osDisk": instance.generation,
            "imageVersion": instance.current.image_version,
            "wanted": instance.wanted.value,
        },
    }
    if judged.state is ProvisioningState.FAILED and judged.trouble:
        properties["labctl"]["trouble"] = judged.trouble  # type: ignore[index]
    if with_view:
        properties["instanceView"] = render_instance_view(judged)
    found: Document = {
        "id": str(identifier),
        "name": instance.name,
        "instanceId": str(instance.ordinal),
        "location": frame.location,
        "sku": dict(frame.sku),
        "properties": properties,
        "resources": [
            render_extension(judged, frame, name) for name in find_extension_statuses(judged)
        ],
    }
    if with_name_of_type:
        found["type"] = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines"
    if judged.placement.zone is not None:
        found["zones"] = [judged.placement.zone]
    return found


def render_extension(
    judged: Judged, frame: Frame, name: str, *, with_view: bool = False
) -> Document:
    """One extension on one instance."""
    identifier = frame.id.child("virtualMachines", str(judged.instance.ordinal))
    status = find_extension_statuses(judged)[name]
    kind = judged.extensions.get(name)
    state = {
        "succeeded": ProvisioningState.SUCCEEDED,
        "failed": ProvisioningState.FAILED,
    }.get(status.code.split("/")[1], ProvisioningState.CREATING)
    properties: Document = {
        "publisher": kind.publisher if kind else "",
        "type": kind.type if kind else "",
        "typeHandlerVersion": kind.version if kind else "1.0",
        "provisioningState": state.value,
    }
    if with_view:
        properties["instanceView"] = render_extension_view(judged, name)
    return {
        "id": str(identifier.child("extensions", name)),
        "name": name,
        "type": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/extensions",
        "location": frame.location,
        "properties": properties,
    }


def read_protection(body: Json, present: Mapping[str, Json]) -> Protection:
    """What a PUT of an instance changes; `present` is what GET gives.

    Raises ArmError for what is no protection, and for what no single instance can have of its own.
    """
    properties = body.get("properties")
    if properties is not None and not isinstance(properties, dict):
        raise invalid("'properties' must be an object.", target="properties")
    shown: Mapping[str, Json] = present["properties"]
    for key, value in (properties or {}).items():
        if key in _TOLD or key == "protectionPolicy":
            continue
        if _differs(value, shown.get(key)):
            raise not_supported(
                f"'properties.{key[:80]}' of a single instance cannot be changed: instances of a "
                "lab have the model of their scale set. Change the scale set, then update the "
                "instance.",
                target=f"properties.{key[:80]}",
            )
    for key in ("tags", "identity", "plan", "zones", "sku"):
        if _differs(body.get(key), present.get(key)):
            raise not_supported(
                f"'{key}' of a single instance cannot be changed in a lab.", target=key
            )
    policy = (properties or {}).get("protectionPolicy")
    if policy is None:
        return Protection()
    if not isinstance(policy, dict):
        raise invalid(
            "'properties.protectionPolicy' must be an object.",
            target="properties.protectionPolicy",
        )
    return Protection(
        scale_in=_read_flag(policy, "protectFromScaleIn"),
        actions=_read_flag(policy, "protectFromScaleSetActions"),
    )


def _read_flag(policy: Mapping[str, Json], key: str) -> bool | None:
    value = policy.get(key)
    if value is None or isinstance(value, bool):
        return value
    target = f"properties.protectionPolicy.{key}"
    raise invalid(f"'{target}' must be true or false, not {str(value)[:60]!r}.", target=target)


def _differs(value: Json, present: Json) -> bool:
    """Does `value` say anything that is not so? What it leaves out it does not say."""
    if value is None:
        return False
    if isinstance(value, dict):
        if not isinstance(present, dict):
            return bool(value)
        return any(_differs(each, present.get(key)) for key, each in value.items())
    if isinstance(value, list):
        if not isinstance(present, list):
            return bool(value)
        return len(value) != len(present) or any(
            _differs(one, other) for one, other in zip(value, present, strict=True)
        )
    return bool(value != present)


def _render_storage(judged: Judged, frame: Frame) -> Document:
    instance = judged.instance
    image = {key: value for key, value in frame.image.items() if key != "exactVersion"}
    return {
        "imageReference": image | {"exactVersion": instance.current.image_version},
        "osDisk": {
            "osType": "Windows" if judged.model.is_windows else "Linux",
            "name": name_os_disk(instance),
            "createOption": "FromImage",
            **(
                {"diskSizeGB": -(-judged.model.os_disk.size // GIB)}
                if judged.model.os_disk.size
                else {}
            ),
        },
        "dataDisks": [
            {
                "lun": lun,
                "name": name_data_disk(instance, disk.name),
                "createOption": "Empty",
                "diskSizeGB": -(-disk.size // GIB),
            }
            for lun, disk in enumerate(judged.model.data_disks)
        ],
    }


def _render_os(judged: Judged, frame: Frame) -> Document:
    shown = frame.profile.get("osProfile") or {}
    rest = {
        key: value for key, value in shown.items() if key in {"adminUsername", "linuxConfiguration"}
    }
    return {"computerName": name_computer(judged.instance.name), **rest}
