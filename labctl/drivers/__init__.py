"""Touches the world: libvirt, qemu-img, seeds, SSH, probes. Knows no upgrades."""
