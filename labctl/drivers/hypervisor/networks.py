"""Keeps the libvirt networks of scale sets as they should be, without stopping them."""

from uuid import UUID

import libvirt

from labctl.drivers.hypervisor.failure import is_absent
from labctl.drivers.network import (
    DhcpHost,
    NatNetworkConfig,
    build_host_xml,
    build_network_xml,
    read_hosts,
    read_subnet,
)
from labctl.errors import RefusedError


def ensure_network(connection: libvirt.virConnect, config: NatNetworkConfig) -> bool:
    """Define and start the network, or bring its DHCP hosts up to date. False: nothing to do."""
    network = _find(connection, config.name, config.uuid)
    if network is None:
        network = connection.networkDefineXML(build_network_xml(config))
        network.create()
        return True
    current = network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    if read_subnet(current) != config.subnet:
        raise RefusedError(
            f"network {config.name!r} has subnet {read_subnet(current)}, not {config.subnet}",
            hint="a network cannot be changed; delete the scale set first",
        )
    changed = _update_hosts(network, current, config)
    if not network.isActive():
        network.create()
        changed = True
    return changed


def ensure_network_absent(connection: libvirt.virConnect, name: str, uuid: UUID) -> bool:
    """Stop and undefine the network. False: it was not there."""
    network = _find(connection, name, uuid)
    if network is None:
        return False
    if network.isActive():
        network.destroy()
    network.undefine()
    return True


def _find(connection: libvirt.virConnect, name: str, uuid: UUID) -> libvirt.virNetwork | None:
    try:
        network = connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if is_absent(error):
            return None
        raise
    if UUID(network.UUIDString()) != uuid:
        raise RefusedError(
            f"network {name!r} exists and is not labctl's here",
            detail=f"its UUID is {network.UUIDString()}, ours would be {uuid}",
            hint=f"rename the scale set, or remove it: virsh net-undefine {name}",
        )
    return network


def _update_hosts(network: libvirt.virNetwork, current: str, config: NatNetworkConfig) -> bool:
    present, wanted = set(read_hosts(current)), set(config.hosts)
    # Removals first: an address may pass from one interface to another.
    for host in sorted(present - wanted, key=lambda host: host.address):
        _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, host)
    for host in sorted(wanted - present, key=lambda host: host.address):
        _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host)
    return present != wanted


def _update(network: libvirt.virNetwork, command: int, host: DhcpHost) -> None:
    scope = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if network.isActive():
        scope |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
    network.update(command, section, -1, build_host_xml(host), scope)
