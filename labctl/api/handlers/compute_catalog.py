"""The sizes that instances may have, and how much of the lab is in use."""

from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.query import read_filter
from labctl.api.regions import load_regions
from labctl.api.respond import answer_page
from labctl.api.route import Route
from labctl.arm.sizes import AZURE_SIZES, name_size
from labctl.arm.tracked import read_location
from labctl.model.machine import MIB, MachineSize
from labctl.store.scale_sets import load_models, load_scale_sets

Json = Any  # what json.loads gives

_LARGEST_OS_DISK = 1023 * 1024  # MiB; Azure's number for its clients, no bound of a lab
_DATA_DISKS = 16
_MANY = 1000  # instances of one set; a lab has no quota
_PAGE = 1000  # sizes and usages come in one piece, as Azure's do


def list_sizes(desk: Desk, call: Call) -> Answer:
    """Every size that has a name here, and those that scale sets have."""
    read_location(call.parameters["location"])
    sizes = _load_sizes(desk)
    return answer_page(call, list(sizes.items()), render=_render_size, size=_PAGE)


def list_skus(desk: Desk, call: Call) -> Answer:
    """The same as SKUs, with regions and zones; nothing is restricted."""
    wanted = read_filter(call, "location")
    with desk.database.read() as connection:
        regions = load_regions(connection)
        zones = _load_zones(connection)
    if "location" in wanted:
        # Also one where nothing is yet: every region is there as soon as somebody names it.
        regions = [read_location(wanted["location"], target="$filter")]
    sizes = _load_sizes(desk)
    return answer_page(
        call,
        list(sizes.items()),
        render=lambda pair: _render_sku(pair, regions, zones),
        size=_PAGE,
    )


def list_usages(desk: Desk, call: Call) -> Answer:
    """What is in use in a region; the limits are those of labctl, not of the host."""
    region = read_location(call.parameters["location"])
    sets = instances = cores = 0
    with desk.database.read() as connection:
        for row in load_scale_sets(connection):
            spec = load_models(connection, row.name)[row.model_revision]
            if spec.region == region:
                sets += 1
                instances += spec.capacity
                cores += spec.capacity * spec.size.vcpus
    usages = [
        _render_usage("cores", "Total Regional vCPUs", cores, 64 * _MANY),
        _render_usage("virtualMachines", "Virtual Machines", instances, 10 * _MANY),
        _render_usage("virtualMachineScaleSets", "Virtual Machine Scale Sets", sets, _MANY),
    ]
    return answer_page(call, usages)


def _load_sizes(desk: Desk) -> dict[str, MachineSize]:
    found = dict(AZURE_SIZES)
    known = set(found.values())
    with desk.database.read() as connection:
        for row in load_scale_sets(connection):
            size = load_models(connection, row.name)[row.model_revision].size
            if size not in known:
                found[name_size(size)] = size
    return found


def _load_zones(connection: Connection) -> dict[str, list[str]]:
    """The zones of each region's scale sets."""
    found: dict[str, set[str]] = {}
    for row in load_scale_sets(connection):
        spec = load_models(connection, row.name)[row.model_revision]
        found.setdefault(spec.region, set()).update(spec.zones)
    return {region: sorted(zones) for region, zones in found.items()}


def _render_size(pair: tuple[str, MachineSize]) -> Json:
    name, size = pair
    return {
        "name": name,
        "numberOfCores": size.vcpus,
        "osDiskSizeInMB": _LARGEST_OS_DISK,
        "resourceDiskSizeInMB": 0,
        "memoryInMB": size.memory // MIB,
        "maxDataDiskCount": _DATA_DISKS,
    }


def _render_sku(
    pair: tuple[str, MachineSize], regions: list[str], zones: dict[str, list[str]]
) -> Json:
    name, size = pair
    capabilities = {
        "vCPUs": str(size.vcpus),
        "vCPUsAvailable": str(size.vcpus),
        "MemoryGB": f"{size.memory / 2**30:g}",
        "MaxDataDiskCount": str(_DATA_DISKS),
        "HyperVGenerations": "V1,V2",
        "CpuArchitectureType": "x64",
        "PremiumIO": "True",
        "LowPriorityCapable": "True",
        "AcceleratedNetworkingEnabled": "False",
        "EphemeralOSDiskSupported": "False",
        "EncryptionAtHostSupported": "False",
    }
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": name.split("_")[0],
        "size": name.partition("_")[2],
        "family": "labFamily",
        "locations": regions,
        "locationInfo": [
            {"location": region, "zones": zones.get(region, []), "zoneDetails": []}
            for region in regions
        ],
        "capabilities": [{"name": key, "value": value} for key, value in capabilities.items()],
        "restrictions": [],
    }


def _render_usage(name: str, title: str, used: int, limit: int) -> Json:
    return {
        "unit": "Count",
        "currentValue": used,
        "limit": limit,
        "name": {"value": name, "localizedValue": title},
    }


_COMPUTE = "/subscriptions/{subscription}/providers/Microsoft.Compute"
_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "items": {"type": "object"}}},
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{_COMPUTE}/locations/{{location}}/vmSizes",
        handler=list_sizes,
        summary="List the sizes of instances",
        is_kept=True,
        response=_LIST,
    ),
    Route(
        method="GET",
        path=f"{_COMPUTE}/locations/{{location}}/usages",
        handler=list_usages,
        summary="Show how much of the lab is in use",
        is_kept=True,
        response=_LIST,
    ),
    Route(
        method="GET",
        path=f"{_COMPUTE}/skus",
        handler=list_skus,
        summary="List the sizes of instances as SKUs",
        is_kept=True,
        query={"$filter": "location eq 'REGION'", "includeExtendedLocations": "taken"},
        response=_LIST,
    ),
)
