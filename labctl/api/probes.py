"""Which health probe of a load balancer which scale set goes by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from labctl.arm.errors import ArmError, invalid
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.probe import read_probe
from labctl.controller.desired import apply_spec
from labctl.model.health_source import Health, HealthProbe
from labctl.store.arm_resources import ArmResource, find_resource, load_resources
from labctl.store.scale_sets import find_scale_set, load_models

Json = Any  # what json.loads gives

SCALE_SET_TYPE = "Microsoft.Compute/virtualMachineScaleSets"
LOAD_BALANCER_TYPE = "Microsoft.Network/loadBalancers"
PROBE_TYPE = f"{LOAD_BALANCER_TYPE}/probes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeUser:
    """A scale set whose document names a probe."""

    resource: str  # the id of the scale set
    scale_set: str  # its name in labctl
    group: str | None  # the key of its resource group
    probe: str  # the id of the probe, as the scale set has it


def find_probe(connection: Connection, identifier: Json, *, target: str) -> HealthProbe:
    """The probe with this id, as a scale set's spec has it.

    Raises ArmError: LinkedInvalidPropertyId for what is no id of a probe, InvalidResourceReference
    for one that is not there, InvalidParameter for one that instances cannot be asked by.
    """
    probe = parse_id(identifier, target=target)
    if probe.type.lower() != PROBE_TYPE.lower() or probe.parent is None:
        raise invalid(
            f"'{target}' must be the id of a {PROBE_TYPE}, not '{str(probe)[:300]}'.",
            code="LinkedInvalidPropertyId",
            target=target,
        )
    balancer = find_resource(connection, str(probe.parent))
    found = None if balancer is None else find_properties(balancer.document, probe.name)
    if found is None:
        raise refuse_reference(probe, target)
    return read_probe(found, target=probe.name)


def probe_users(connection: Connection, balancer: str) -> list[ProbeUser]:
    """The scale sets that go by a probe of this load balancer; not those that are to go."""
    found = []
    prefix = f"{balancer.lower()}/probes/"
    for resource in load_resources(connection, type=SCALE_SET_TYPE):
        name = resource.name.lower()
        row = find_scale_set(connection, name)
        if row is None or row.is_deleting:
            continue
        found += [
            ProbeUser(resource=resource.id, scale_set=name, group=resource.group, probe=probe)
            for probe in sorted(set(_find_probe_ids(resource.document)))
            if probe.lower().startswith(prefix)
        ]
    return found


def follow_probes(
    connection: Connection, balancer: ArmResource, document: Mapping[str, Json], *, now: datetime
) -> list[str]:
    """Give the scale sets that go by a probe of this load balancer what `document` makes of it.

    Returns the ids of those that were changed. One whose health was set in another way meanwhile
    stays as it is. Raises ArmError for a probe that is in use and would be no more.
    """
    changed = []
    for user in probe_users(connection, balancer.id):
        name = user.probe.rsplit("/", 1)[1]
        before = find_properties(balancer.document, name)
        if before is None:
            continue
        row = find_scale_set(connection, user.scale_set)
        if row is None:
            continue
        spec = load_models(connection, user.scale_set)[row.model_revision]
        if spec.health.probe is None or spec.health.probe != _read_known(before, name):
            continue
        after = find_properties(document, name)
        if after is None:
            raise refuse_in_use(balancer.id, [user])
        probe = read_probe(after, target=name)
        if probe == spec.health.probe:
            continue
        wanted = spec.model_copy(update={"health": Health(probe=probe)})
        apply_spec(connection, wanted, now=now)
        changed.append(user.resource)
    return changed


def find_properties(document: Mapping[str, Json], name: str) -> dict[str, Json] | None:
    """The properties of the probe of this name in the document of a load balancer."""
    properties = document.get("properties")
    probes = properties.get("probes") if isinstance(properties, dict) else None
    for probe in probes if isinstance(probes, list) else ():
        if isinstance(probe, dict) and str(probe.get("name", "")).lower() == name.lower():
            found = probe.get("properties")
            return found if isinstance(found, dict) else {}
    return None


def refuse_in_use(balancer: str, users: list[ProbeUser]) -> ArmError:
    """409: the health of scale sets comes from a probe of this load balancer."""
    names = ", ".join(sorted({user.resource for user in users}))
    return ArmError(
        409,
        "LoadBalancerInUseByVirtualMachineScaleSet",
        f"Cannot delete load balancer {balancer} or its probes: the health of {names} comes from "
        f"{', '.join(sorted({user.probe for user in users}))}. Change these scale sets first.",
        target=balancer,
    )


def refuse_reference(identifier: ResourceId, target: str) -> ArmError:
    """400: a resource names another one that is not there."""
    return ArmError(
        400,
        "InvalidResourceReference",
        f"Resource {str(identifier)[:500]} referenced by '{target}' was not found. Please make "
        "sure that the referenced resource exists.",
        target=target,
    )


def _read_known(properties: Mapping[str, Json], name: str) -> HealthProbe | None:
    try:
        return read_probe(properties, target=name)
    except ArmError:  # kept although instances cannot be asked so; then nobody goes by it
        return None


def _find_probe_ids(value: Json) -> Iterator[str]:
    """Every `healthProbe: {id}` in a document, wherever it is."""
    if isinstance(value, list):
        for each in value:
            yield from _find_probe_ids(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key.lower() == "healthprobe" and isinstance(each, dict):
                identifier = each.get("id")
                if isinstance(identifier, str):
                    yield identifier
            else:
                yield from _find_probe_ids(each)
