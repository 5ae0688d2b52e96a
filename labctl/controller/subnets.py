"""Which addresses a scale set has, where its network has addresses of its own."""

import ipaddress

from sqlalchemy import Connection

from labctl.errors import RefusedError
from labctl.model.spec import RESERVED_ADDRESSES, SUBNET_PREFIX, ScaleSetSpec
from labctl.store.scale_sets import load_scale_sets

_SUBNETS = ipaddress.IPv4Network("10.87.0.0/16")


def choose_subnet(connection: Connection, spec: ScaleSetSpec) -> str | None:
    """The subnet of a new scale set, if it needs one. Raises RefusedError when none is free."""
    if spec.network.type != "nat":
        return None
    check_subnet_holds(spec)
    taken = [ipaddress.IPv4Network(row.subnet) for row in load_scale_sets(connection) if row.subnet]
    if spec.network.subnet is not None:
        wanted = ipaddress.IPv4Network(spec.network.subnet)
        clash = next((network for network in taken if network.overlaps(wanted)), None)
        if clash is not None:
            raise RefusedError(
                f"subnet {wanted} overlaps {clash}, which another scale set uses",
                hint="choose another network.subnet, or leave it out",
            )
        return str(wanted)
    for candidate in _SUBNETS.subnets(new_prefix=SUBNET_PREFIX):
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise RefusedError(
        f"no subnet of {_SUBNETS} is free", hint="set network.subnet, or delete a scale set"
    )


def check_subnet_holds(spec: ScaleSetSpec) -> None:
    """Raises RefusedError for a subnet with too few addresses."""
    room = spec.network.room
    if spec.network.subnet is not None and room is not None and spec.capacity > room:
        raise RefusedError(
            f"subnet {spec.network.subnet} has room for {room} instances, not {spec.capacity}",
            hint="choose a wider network.subnet or a lower capacity",
        )


def address_of(subnet: str, ordinal: int) -> str:
    """The address of an instance in its scale set's subnet."""
    network = ipaddress.IPv4Network(subnet)
    return str(network.network_address + RESERVED_ADDRESSES + ordinal)
