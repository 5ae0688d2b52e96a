"""The libvirt network of a scale set with network `nat`: fixed addresses by DHCP host entries."""

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID, uuid5
from xml.etree import ElementTree as ET

from labctl.errors import InvalidError

_SPACE = UUID("6f2a1f0e-5a55-4c6e-9d0e-2f6c3a1b7d10")
_SMALLEST = 29  # prefix length; 8 addresses: gateway, 5 hosts, network, broadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpHost:
    """The address that an interface always gets."""

    mac: str
    address: IPv4Address
    hostname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NatNetworkConfig:
    """A network behind the host's NAT. The UUID tells ours from others of the same name."""

    name: str
    uuid: UUID
    bridge: str
    subnet: IPv4Network
    hosts: tuple[DhcpHost, ...] = ()

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in the network: the first one."""
        return self.subnet.network_address + 1


def nat_network(
    state_dir: Path, scale_set: str, subnet: IPv4Network, hosts: tuple[DhcpHost, ...] = ()
) -> NatNetworkConfig:
    """Name the network of a scale set; state directories do not share names of bridges or UUIDs."""
    key = f"{state_dir}\0{scale_set}"
    return NatNetworkConfig(
        name=f"labctl-{scale_set}",
        uuid=uuid5(_SPACE, key),
        bridge=f"lab-{hashlib.sha256(key.encode()).hexdigest()[:8]}",
        subnet=subnet,
        hosts=hosts,
    )


def build_network_xml(config: NatNetworkConfig) -> str:
    """Raises InvalidError for a host outside the subnet or a subnet that is too small."""
    if config.subnet.prefixlen > _SMALLEST:
        raise InvalidError(
            f"subnet {config.subnet} is too small", hint=f"use at least a /{_SMALLEST}"
        )
    network = ET.Element("network")
    ET.SubElement(network, "name").text = config.name
    ET.SubElement(network, "uuid").text = str(config.uuid)
    ET.SubElement(network, "forward", mode="nat")
    ET.SubElement(network, "bridge", name=config.bridge, stp="off", delay="0")
    gateway = str(config.gateway)
    ip = ET.SubElement(network, "ip", address=gateway, netmask=str(config.subnet.netmask))
    dhcp = ET.SubElement(ip, "dhcp")
    # dnsmasq answers hosts it knows from a range only; strangers may use it too.
    last = config.subnet.broadcast_address - 1
    ET.SubElement(dhcp, "range", start=str(config.gateway + 1), end=str(last))
    for host in config.hosts:
        if host.address not in config.subnet or host.address in (
            config.subnet.network_address,
            config.gateway,
            config.subnet.broadcast_address,
        ):
            raise InvalidError(
                f"address {host.address} of {host.hostname!r} is not a host of {config.subnet}",
                hint="choose a larger subnet",
            )
        dhcp.append(_host(host))
    ET.indent(network)
    return ET.tostring(network, encoding="unicode") + "\n"


def build_host_xml(host: DhcpHost) -> str:
    """One DHCP host entry, as a live update wants it."""
    return ET.tostring(_host(host), encoding="unicode")


def read_hosts(xml: str) -> tuple[DhcpHost, ...]:
    """The DHCP host entries of a network's XML."""
    root = ET.fromstring(xml)  # noqa: S314 - from libvirt
    return tuple(
        DhcpHost(
            mac=element.attrib["mac"].lower(),
            address=IPv4Address(element.attrib["ip"]),
            hostname=element.get("name", ""),
        )
        for element in root.iterfind("ip/dhcp/host")
        if "mac" in element.attrib and "ip" in element.attrib
    )


def read_subnet(xml: str) -> IPv4Network | None:
    """The IPv4 network of a network's XML."""
    root = ET.fromstring(xml)  # noqa: S314 - from libvirt
    ip = root.find("ip")
    if ip is None:
        return None
    mask = ip.get("netmask") or ip.get("prefix", "24")
    return IPv4Network(f"{ip.attrib['address']}/{mask}", strict=False)


def _host(host: DhcpHost) -> ET.Element:
    return ET.Element("host", mac=host.mac, name=host.hostname, ip=str(host.address))
