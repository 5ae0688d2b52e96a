"""The table of supported SKUs of the page that labctl implements, row by row."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRow:
    """One row of the page, and what labctl has for it."""

    publisher: str
    offer: str
    sku: str
    labctl: str
    verified: str


_INDEX = (
    "loopback server with an index of the publisher's shape; the publisher itself was not asked"
)
_IMPORT = "no publisher; labctl image import FILE --os-type Windows; it needs cloudbase-init"
_NOT_RUN = (
    "no guest booted: no Windows image here, and no licence to ship one; seed, machine and agent "
    "were tried by themselves"
)
_WINDOWS = (
    "2012-R2-Datacenter",
    "2016-Datacenter",
    "2016-Datacenter-Smalldisk",
    "2016-Datacenter-with-Containers",
    "2019-Datacenter",
    "2019-Datacenter-Smalldisk",
    "2019-Datacenter-with-Containers",
    "Datacenter-Core-1903-with-Containers-smalldisk",
)

PAGE_ROWS = (
    PageRow(
        publisher="Canonical",
        offer="UbuntuServer",
        sku="16.04-LTS",
        labctl="ubuntu server 16.04; ubuntu server-daily 16.04 (ended, the last images stay)",
        verified=_INDEX,
    ),
    PageRow(
        publisher="Canonical",
        offer="UbuntuServer",
        sku="18.04-LTS",
        labctl="ubuntu server 18.04; ubuntu server-daily 18.04 (ended, the last images stay)",
        verified=_INDEX,
    ),
    PageRow(
        publisher="Rogue Wave (OpenLogic)",
        offer="CentOS",
        sku="7.5",
        labctl="centos linux 7.5: the project's own images of April to September 2018 (ended)",
        verified=_INDEX,
    ),
    PageRow(
        publisher="CoreOS",
        offer="CoreOS",
        sku="Stable",
        labctl="its successors: flatcar container-linux stable; fedora-coreos coreos stable",
        verified=_INDEX,
    ),
    *(
        PageRow(
            publisher="Microsoft Corporation",
            offer="WindowsServer",
            sku=sku,
            labctl=_IMPORT,
            verified=_NOT_RUN,
        )
        for sku in _WINDOWS
    ),
)
