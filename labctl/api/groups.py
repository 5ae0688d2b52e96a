"""Resource groups: which there are, and what is in them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from labctl.api.desk import DEFAULT_GROUP, Desk
from labctl.arm.errors import ArmError, conflict
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import find_resource, load_resources
from labctl.store.operations import load_open_operations

Json = Any  # what json.loads gives

GROUP_TYPE = "Microsoft.Resources/resourceGroups"
GROUP_DELETE = "group-delete"  # kind of operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A resource group."""

    id: str
    name: str  # in the case in which it was made
    document: dict[str, Json]  # location, tags, managedBy
    is_deleting: bool

    @property
    def key(self) -> str:
        """Equal for names that mean the same; what `ArmResource.group` holds."""
        return self.name.lower()

    @property
    def location(self) -> str:
        """Its region."""
        return str(self.document.get("location", DEFAULT_REGION))


def make_group_id(desk: Desk, name: str) -> str:
    """The id of a group of this lab."""
    return f"/subscriptions/{desk.subscription_id}/resourceGroups/{name}"


def find_group(connection: Connection, desk: Desk, name: str) -> Group | None:
    """The group of this name, in any case; the default group is always there."""
    identifier = make_group_id(desk, name)
    row = find_resource(connection, identifier)
    if row is None:
        return _make_default(desk) if name.lower() == DEFAULT_GROUP else None
    operations = load_open_operations(connection, resource=identifier)
    return Group(
        id=row.id,
        name=row.name,
        document=row.document,
        is_deleting=any(each.kind == GROUP_DELETE for each in operations),
    )


def check_group(
    connection: Connection, desk: Desk, name: str, *, is_written: bool = False
) -> Group:
    """The group of this name; `is_written`: something is to be put into it.

    Raises ArmError (ResourceGroupNotFound; ResourceGroupBeingDeleted when it is to be written).
    """
    found = find_group(connection, desk, name)
    if found is None:
        raise ArmError(
            404,
            "ResourceGroupNotFound",
            f"Resource group '{name[:90]}' could not be found. Groups are made by PUT; what was "
            f"made without the API is in '{DEFAULT_GROUP}'.",
            target=name[:90],
        )
    if is_written and found.is_deleting:
        raise conflict(
            f"The resource group '{found.name}' is being deleted; nothing can be put into it.",
            code="ResourceGroupBeingDeleted",
            target=found.name,
        )
    return found


def load_groups(connection: Connection, desk: Desk) -> list[Group]:
    """All groups by name."""
    deleting = {
        each.resource.lower()
        for each in load_open_operations(connection)
        if each.kind == GROUP_DELETE
    }
    found = [
        Group(id=row.id, name=row.name, document=row.document, is_deleting=row.key in deleting)
        for row in load_resources(connection, type=GROUP_TYPE)
    ]
    if all(each.key != DEFAULT_GROUP for each in found):
        found.append(_make_default(desk))
    return sorted(found, key=lambda group: group.key)


def _make_default(desk: Desk) -> Group:
    return Group(
        id=make_group_id(desk, DEFAULT_GROUP),
        name=DEFAULT_GROUP,
        document={"location": DEFAULT_REGION},
        is_deleting=False,
    )
