"""The network resources that a lab keeps, and the parts that each of them has."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A list in a resource's properties whose members have names and ids of their own."""

    key: str  # in `properties`, and the type behind the resource's
    is_shown: bool = True  # can be asked for by its own path
    is_written: bool = False  # can be written and deleted by its own path
    in_use_code: str = "InUse"  # when it is named by another resource
    parts: "tuple[Part, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type of network resource."""

    name: str  # "loadBalancers"
    title: str  # for people
    parts: tuple[Part, ...] = ()
    defaults: dict[str, object] = field(default_factory=dict)  # properties that clients expect
    in_use_code: str  # when it is named by another resource

    @property
    def type(self) -> str:
        """With its namespace."""
        return f"Microsoft.Network/{self.name}"

    def find_part(self, key: str) -> Part:
        """The part of this name."""
        return next(each for each in self.parts if each.key == key)


NETWORK_KINDS = (
    Kind(
        name="virtualNetworks",
        title="virtual network",
        parts=(
            Part(key="subnets", is_written=True, in_use_code="InUseSubnetCannotBeDeleted"),
            Part(key="virtualNetworkPeerings", is_shown=False),
        ),
        defaults={"enableDdosProtection": False},
        in_use_code="InUseVirtualNetworkCannotBeDeleted",
    ),
    Kind(
        name="networkSecurityGroups",
        title="network security group",
        parts=(Part(key="securityRules", is_written=True),),
        in_use_code="InUseNetworkSecurityGroupCannotBeDeleted",
    ),
    Kind(
        name="publicIPAddresses",
        title="public IP address",
        defaults={
            "publicIPAddressVersion": "IPv4",
            "publicIPAllocationMethod": "Dynamic",
            "idleTimeoutInMinutes": 4,
        },
        in_use_code="PublicIPAddressCannotBeDeleted",
    ),
    Kind(
        name="publicIPPrefixes",
        title="public IP prefix",
        defaults={"publicIPAddressVersion": "IPv4", "prefixLength": 28},
        in_use_code="InUsePrefixCannotBeDeleted",
    ),
    Kind(
        name="loadBalancers",
        title="load balancer",
        parts=(
            Part(key="frontendIPConfigurations"),
            Part(
                key="backendAddressPools",
                is_written=True,
                parts=(Part(key="loadBalancerBackendAddresses", is_shown=False),),
            ),
            Part(key="loadBalancingRules"),
            Part(key="probes", in_use_code="LoadBalancerInUseByVirtualMachineScaleSet"),
            Part(key="inboundNatRules", is_written=True),
            Part(key="inboundNatPools", is_shown=False),
            Part(key="outboundRules"),
        ),
        in_use_code="LoadBalancerInUseByVirtualMachineScaleSet",
    ),
    Kind(
        name="natGateways",
        title="NAT gateway",
        defaults={"idleTimeoutInMinutes": 4},
        in_use_code="InUseNatGatewayCannotBeDeleted",
    ),
)


def find_kind(type: str) -> Kind | None:  # noqa: A002 - the field's word
    """The kind of this type, in any case."""
    return next((each for each in NETWORK_KINDS if each.type.lower() == type.lower()), None)
