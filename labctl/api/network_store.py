"""Network resources in the store: looked up, checked against each other, written."""

from typing import Any

from sqlalchemy import Connection

from labctl.api.call import Call
from labctl.api.desk import Desk
from labctl.api.groups import check_group
from labctl.api.probes import LOAD_BALANCER_TYPE, follow_probes
from labctl.api.references import check_references, load_holders, refuse_used
from labctl.api.respond import make_etag
from labctl.arm.errors import resource_not_found
from labctl.arm.ids import ResourceId, parse_id
from labctl.arm.network import find_member, load_members, render_resource
from labctl.arm.network_kinds import Kind
from labctl.store.arm_resources import ArmResource, find_resource, save_resource

Json = Any  # what json.loads gives

NAMESPACE = "Microsoft.Network"


def save(
    connection: Connection,
    kind: Kind,
    identifier: ResourceId,
    before: ArmResource | None,
    document: dict[str, Json],
    call: Call,
) -> ArmResource:
    """Write what was checked; scale sets follow the probes that they go by."""
    check_references(connection, identifier, document)
    if before is not None:
        _refuse_lost_parts(connection, kind, before, document)
        if kind.type == LOAD_BALANCER_TYPE:
            follow_probes(connection, before, document, now=call.now)
    return write(connection, kind, identifier, document, call)


def write(
    connection: Connection,
    kind: Kind,
    identifier: ResourceId,
    document: dict[str, Json],
    call: Call,
) -> ArmResource:
    """Write what is known to be right, and read it back."""
    save_resource(
        connection,
        str(identifier),
        type=kind.type,
        group=identifier.group,
        name=identifier.name,
        document=document,
        now=call.now,
    )
    saved = find_resource(connection, str(identifier))
    if saved is None:
        raise LookupError(f"{identifier} is gone")
    return saved


def _refuse_lost_parts(
    connection: Connection, kind: Kind, before: ArmResource, document: dict[str, Json]
) -> None:
    holders = None
    for part in kind.parts:
        for member in load_members(before.document, part.key):
            if find_member(document, part.key, str(member["name"])) is None:
                holders = load_holders(connection) if holders is None else holders
                lost = f"{before.id}/{part.key}/{member['name']}"
                refuse_used(holders, lost, code=part.in_use_code)


def make_id(kind: Kind, desk: Desk, group: str, name: str) -> ResourceId:
    """The id of a network resource of this lab."""
    return ResourceId(
        subscription=desk.subscription_id,
        group=group,
        namespace=NAMESPACE,
        parts=((kind.name, name),),
    )


def get_resource(connection: Connection, kind: Kind, desk: Desk, call: Call) -> ArmResource:
    """The resource that a path names. Raises ArmError (ResourceNotFound, ...)."""
    group = check_group(connection, desk, call.parameters["group"])
    identifier = make_id(kind, desk, group.name, call.parameters["name"])
    resource = find_resource(connection, str(identifier))
    if resource is None:
        raise resource_not_found(str(identifier)[:500])
    return resource


def make_resource_etag(kind: Kind, resource: ArmResource) -> str:
    """Made from what is shown, so that to PUT what GET gave changes nothing."""
    identifier = parse_id(resource.id)
    return make_etag(render_resource(kind, identifier, resource.document, etag=""))
