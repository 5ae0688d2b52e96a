"""Scale sets of real libvirt/QEMU virtual machines, with health-gated OS image upgrades."""

__version__ = "0.1.0"
