"""The resource providers of a lab, with what they know."""

from dataclasses import dataclass

# Clients take one of these; the API takes any that is well formed, so that none of them is old.
_COMPUTE = (
    "2026-04-01",
    "2025-11-01",
    "2025-04-01",
    "2024-11-01",
    "2024-07-01",
    "2024-03-01",
    "2023-09-01",
    "2022-03-01",
    "2021-03-01",
    "2019-12-01",
    "2018-10-01",
)
_GALLERY = ("2026-03-03", "2024-03-03", "2023-07-03", "2022-08-03", "2021-10-01", "2019-12-01")
_NETWORK = ("2024-05-01", "2023-09-01", "2022-01-01", "2020-11-01", "2018-10-01", "2015-06-15")
_RESOURCES = ("2024-11-01", "2024-03-01", "2022-09-01", "2021-04-01", "2019-10-01", "2018-05-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """One type of a provider, without its namespace."""

    name: str
    api_versions: tuple[str, ...]
    is_tracked: bool = True  # has a location and tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One namespace."""

    namespace: str
    types: tuple[ResourceType, ...]


def _make_types(
    versions: tuple[str, ...], *tracked: str, untracked: tuple[str, ...] = ()
) -> tuple[ResourceType, ...]:
    return (
        *(ResourceType(name=name, api_versions=versions) for name in tracked),
        *(ResourceType(name=name, api_versions=versions, is_tracked=False) for name in untracked),
    )


PROVIDERS = (
    Provider(
        namespace="Microsoft.Compute",
        types=(
            *_make_types(
                _COMPUTE,
                "virtualMachineScaleSets",
                "virtualMachineScaleSets/virtualMachines",
                "virtualMachineScaleSets/extensions",
                untracked=(
                    "locations",
                    "locations/operations",
                    "locations/publishers",
                    "locations/usages",
                    "locations/vmSizes",
                    "skus",
                ),
            ),
            *_make_types(_GALLERY, "galleries", "galleries/images", "galleries/images/versions"),
        ),
    ),
    Provider(
        namespace="Microsoft.Network",
        types=_make_types(
            _NETWORK,
            "loadBalancers",
            "natGateways",
            "networkSecurityGroups",
            "publicIPAddresses",
            "publicIPPrefixes",
            "virtualNetworks",
            untracked=("virtualNetworks/subnets", "networkSecurityGroups/securityRules"),
        ),
    ),
    Provider(
        namespace="Microsoft.Resources",
        types=_make_types(
            _RESOURCES,
            "resourceGroups",
            untracked=(
                "deployments",
                "deployments/operations",
                "providers",
                "resources",
                "subscriptions",
                "subscriptions/locations",
                "subscriptions/resourceGroups",
                "tenants",
            ),
        ),
    ),
)


def find_provider(namespace: str) -> Provider | None:
    """The provider of this namespace, in any case."""
    found = (each for each in PROVIDERS if each.namespace.lower() == namespace.lower())
    return next(found, None)
