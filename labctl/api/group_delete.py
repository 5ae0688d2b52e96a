"""Takes the deletion of a resource group further: its scale sets first, then the rest."""

from sqlalchemy import Connection

from labctl.api.desk import Desk
from labctl.api.galleries import refuse_followed
from labctl.api.groups import Group, find_group
from labctl.api.probes import SCALE_SET_TYPE
from labctl.api.references import load_holders, refuse_used
from labctl.arm.errors import ArmError
from labctl.arm.network_kinds import find_kind
from labctl.controller.clock import now as read_clock
from labctl.controller.desired import delete_scale_set
from labctl.controller.image_import import forget_unwanted_downloads
from labctl.controller.images import collect_garbage
from labctl.controller.operations import Ending, Step
from labctl.store.arm_resources import load_resources, remove_resource
from labctl.store.gallery import (
    find_definition,
    load_versions,
    remove_definition,
    remove_version,
)
from labctl.store.operations import Operation
from labctl.store.scale_sets import find_scale_set

DEFINITION_TYPE = "Microsoft.Compute/galleries/images"


def refuse_kept(connection: Connection, group: Group) -> None:
    """Raises ArmError when resources outside name network resources in the group."""
    outside = [each for each in load_holders(connection) if each.group != group.key]
    for resource in load_resources(connection, group=group.key):
        kind = find_kind(resource.type)
        if kind is not None:
            refuse_used(outside, resource.id, code=kind.in_use_code)


def make_group_step(desk: Desk) -> Step:
    """The step for operations of the kind `group-delete`; it deletes files, so it may be slow."""

    def step(operation: Operation) -> Ending | None:
        try:
            had_images = _delete(desk, operation.resource.rsplit("/", 1)[1])
        except ArmError as error:
            return Ending(error=error.document)
        if had_images is None:
            return None
        if had_images:
            forget_unwanted_downloads(desk.settings, desk.database)
            collect_garbage(desk.settings, desk.database)
        return Ending()

    return step


def _delete(desk: Desk, name: str) -> bool | None:
    """Whether images went with the group; None: its scale sets are not gone yet."""
    with desk.database.write() as connection:
        group = find_group(connection, desk, name)
        if group is None:  # it went just before a restart, and its files perhaps did not
            return True
        if not _ask_for_deletion(connection, group):
            return None
        refuse_kept(connection, group)
        had_images = _remove_images(connection, group)
        # Rows of resources in the group have ids below that of the group, and go with it.
        remove_resource(connection, group.id)
    return had_images


def _ask_for_deletion(connection: Connection, group: Group) -> bool:
    """Ask for the end of each scale set; returns whether all are gone."""
    are_gone = True
    for resource in load_resources(connection, type=SCALE_SET_TYPE, group=group.key):
        name = resource.name.lower()
        row = find_scale_set(connection, name)
        if row is None:
            continue
        are_gone = False
        if not row.is_deleting:
            delete_scale_set(connection, name, now=read_clock())
    return are_gone


def _remove_images(connection: Connection, group: Group) -> bool:
    """Forget the images of the group's galleries.

    Raises RefusedError for a version that is in use, ArmError for a definition that is.
    """
    definitions = load_resources(connection, type=DEFINITION_TYPE, group=group.key)
    for resource in definitions:
        name = resource.name.lower()
        if find_definition(connection, name) is None:
            continue
        for image in load_versions(connection, name):
            remove_version(connection, name, image.version, now=read_clock())
        refuse_followed(connection, name, resource.id)
        remove_definition(connection, name)
    return bool(definitions)
