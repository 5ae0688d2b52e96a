"""Which scale set of labctl a resource id means, and the other way round."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.api.groups import check_group
from labctl.arm.errors import ArmError, conflict
from labctl.arm.ids import ResourceId
from labctl.model.machine import NAME_PATTERN
from labctl.store.arm_resources import ArmResource, load_resources, remove_resource
from labctl.store.scale_sets import ScaleSetRow, find_scale_set, load_scale_sets

COMPUTE = "Microsoft.Compute"
SET_KIND = "virtualMachineScaleSets"
SET_TYPE = f"{COMPUTE}/{SET_KIND}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSet:
    """A scale set, where it is for Azure's clients, and what only they know of it."""

    row: ScaleSetRow
    id: ResourceId
    resource: ArmResource | None  # None: the API has not written it yet

    @property
    def name(self) -> str:
        """What labctl calls it."""
        return self.row.name


def make_set_id(desk: Desk, group: str, name: str) -> ResourceId:
    """The id of a scale set of this lab."""
    return ResourceId(
        subscription=desk.subscription_id,
        group=group,
        namespace=COMPUTE,
        parts=((SET_KIND, name),),
    )


def find_set(connection: Connection, desk: Desk, group: str, name: str) -> FoundSet:
    """The scale set of this id. Raises ArmError (ResourceGroupNotFound, ResourceNotFound)."""
    check_group(connection, desk, group)
    found = find_set_by_name(connection, desk, name)
    if found is None or (found.id.group or "").lower() != group.lower():
        raise ArmError(
            404,
            "ResourceNotFound",
            f"The Resource '{SET_TYPE}/{name[:80]}' under resource group '{group[:90]}' was not "
            "found.",
            target=str(make_set_id(desk, group[:90], name[:80])),
        )
    return found


def find_called_set(connection: Connection, desk: Desk, parameters: Mapping[str, str]) -> FoundSet:
    """The same by the parameters of a route: {group} and {name}."""
    return find_set(connection, desk, parameters["group"], parameters["name"])


def find_set_by_name(connection: Connection, desk: Desk, name: str) -> FoundSet | None:
    """The scale set of this name, in any case and whichever group it is in."""
    row = find_scale_set(connection, name.lower())
    if row is None:
        return None
    resource = next(
        (each for each in _load_rows(connection) if each.name.lower() == row.name), None
    )
    return _join(desk, row, resource)


def load_sets(connection: Connection, desk: Desk, group: str | None = None) -> list[FoundSet]:
    """All scale sets, or those of a group, by name."""
    resources = {each.name.lower(): each for each in _load_rows(connection)}
    found = [_join(desk, row, resources.get(row.name)) for row in load_scale_sets(connection)]
    return [
        each for each in found if group is None or (each.id.group or "").lower() == group.lower()
    ]


def make_new_set_id(connection: Connection, desk: Desk, group: str, name: str) -> ResourceId:
    """The id of a scale set that is to be made; what is left of an earlier one of the name goes.

    Raises ArmError for a name that labctl cannot take, or that another group has.
    """
    written = check_group(connection, desk, group, is_written=True)
    if not re.fullmatch(NAME_PATTERN, name.lower()):
        raise ArmError(
            400,
            "InvalidParameter",
            f"The name '{name[:80]}' of a scale set must be 1 to 40 letters, digits and hyphens, "
            "begin with a letter and not end with a hyphen: labctl names instances by it.",
            target="name",
        )
    other = find_set_by_name(connection, desk, name)
    if other is not None:
        raise conflict(
            f"A scale set named '{other.id.name}' exists in the resource group "
            f"'{other.id.group}'; names of scale sets are unique in a lab.",
            code="NameAlreadyInUse",
            target="name",
        )
    for stale in _load_rows(connection):
        if stale.name.lower() == name.lower():
            remove_resource(connection, stale.id)
    return make_set_id(desk, written.name, name)


def forget_set(connection: Connection, name: str) -> None:
    """Remove what only Azure's clients knew of a scale set that is gone."""
    for row in _load_rows(connection):
        if row.name.lower() == name:
            remove_resource(connection, row.id)


def make_instance_id(scale_set: ResourceId, ordinal: int) -> ResourceId:
    """The id of an instance."""
    return scale_set.child("virtualMachines", str(ordinal))


def read_ordinal(text: str, scale_set: str) -> int | None:
    """The ordinal that an instanceId means: "3", and "web_3" as labctl calls it."""
    name, joint, digits = text.rpartition("_")
    if joint and name.lower() != scale_set:
        return None
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _load_rows(connection: Connection) -> list[ArmResource]:
    return load_resources(connection, type=SET_TYPE)


def _join(desk: Desk, row: ScaleSetRow, resource: ArmResource | None) -> FoundSet:
    if resource is None:
        return FoundSet(row=row, id=make_set_id(desk, DEFAULT_GROUP, row.name), resource=None)
    # The id that its client wrote, so that clients find it in the case that they know.
    words = resource.id.split("/")
    identifier = make_set_id(desk, words[4], resource.name)
    return FoundSet(row=row, id=identifier, resource=resource)
