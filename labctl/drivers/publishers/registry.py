"""All publishers that labctl knows."""

from labctl.drivers.publishers import (
    almalinux,
    centos,
    debian,
    fedora,
    fedora_coreos,
    flatcar,
    rocky,
    ubuntu,
)
from labctl.drivers.publishers.adapter import Adapter
from labctl.errors import NotFoundError

ADAPTERS = (
    ubuntu.ADAPTER,
    debian.ADAPTER,
    fedora.ADAPTER,
    rocky.ADAPTER,
    almalinux.ADAPTER,
    centos.ADAPTER,
    flatcar.ADAPTER,
    fedora_coreos.ADAPTER,
)


def get_adapter(name: str) -> Adapter:
    """Raises NotFoundError that tells the publishers there are."""
    for adapter in ADAPTERS:
        if adapter.publisher.name == name:
            return adapter
    raise NotFoundError(
        f"publisher {name!r} is not known",
        detail=f"there are: {', '.join(adapter.publisher.name for adapter in ADAPTERS)}",
        hint="run: labctl image publishers",
    )
