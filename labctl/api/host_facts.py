"""What of a spec only the host can tell: whether it knows the time zones of windows."""

from labctl.arm.errors import invalid
from labctl.arm.labctl_part import LABCTL
from labctl.controller.zones import find_zone_faults
from labctl.model.spec import ScaleSetSpec


def check_zones(spec: ScaleSetSpec) -> None:
    """Raise ArmError for a window in a time zone without a clock: it would never open."""
    for place, fault in find_zone_faults(spec.upgrade_policy.maintenance_windows):
        target = f"{LABCTL}.upgradePolicy.maintenanceWindows[{place}].timeZone"
        raise invalid(f"'{target}': {fault}.", target=target)
