"""Cluster-managed scale sets: a cluster's own manager looks after what runs on the instances."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from labctl.model.health_source import Health
from labctl.model.instance_policy import AutomaticRepairsPolicy
from labctl.model.setup import Extension
from labctl.model.spec_rules import Faults, Path
from labctl.model.strict import Strict
from labctl.model.upgrade_policy import UpgradePolicy

LEVEL_SETTING = "durabilityLevel"  # under the `settings` of the extension, as Azure has it


class DurabilityLevel(StrEnum):
    """How much the cluster has a say in what is done to its instances."""

    BRONZE = "Bronze"  # none: no automatic OS upgrades
    SILVER = "Silver"
    GOLD = "Gold"


class ClusterManager(Strict):
    """The manager of the cluster that the instances form."""

    durability_level: Annotated[DurabilityLevel, Field(strict=False)]
    extension: str = Field(
        min_length=1,
        max_length=80,
        description="The extension that joins an instance to the cluster; its "
        "settings.durabilityLevel must be equal",
    )


def find_cluster_faults(
    manager: ClusterManager,
    *,
    extensions: Sequence[Extension],
    health: Health,
    upgrade_policy: UpgradePolicy,
    repairs: AutomaticRepairsPolicy,
) -> Faults:
    """Find what a cluster-managed scale set must not have, or lacks."""
    faults = _find_level_faults(manager, extensions)
    automatic = upgrade_policy.automatic_os_upgrade_policy
    if manager.durability_level is DurabilityLevel.BRONZE and automatic.enable_automatic_os_upgrade:
        faults.append(
            (
                ("clusterManager", "durabilityLevel"),
                "must be 'Silver' or 'Gold' for enableAutomaticOSUpgrade, not 'Bronze'",
            )
        )
    hooks = upgrade_policy.hooks
    is_told = hooks.drain is not None and hooks.undrain is not None
    if manager.durability_level is not DurabilityLevel.BRONZE and not is_told:
        fault = (
            f"{manager.durability_level.value!r} needs upgradePolicy.hooks.drain and .undrain, by "
            "which the cluster is told who is about to stop, and who is back"
        )
        faults.append((("clusterManager", "durabilityLevel"), fault))
    if health.probe is not None:
        faults.append(
            (("health", "probe"), "is not for cluster-managed scale sets; use applicationHealth")
        )
    if repairs.enabled:
        faults.append(
            (
                ("automaticRepairsPolicy", "enabled"),
                "must be false for cluster-managed scale sets: the cluster repairs them itself",
            )
        )
    return faults


def _find_level_faults(manager: ClusterManager, extensions: Sequence[Extension]) -> Faults:
    """Find an extension that is missing, or of another level than the cluster."""
    names = [extension.name for extension in extensions]
    if manager.extension not in names:
        known = f"there are: {', '.join(names)}" if names else "there are none"
        path: Path = ("clusterManager", "extension")
        return [(path, f"there is no extension {manager.extension!r}; {known}")]
    number = names.index(manager.extension)
    settings, level = extensions[number].settings, manager.durability_level
    if LEVEL_SETTING not in settings:
        path = ("extensions", number, "settings")
        return [(path, f"needs {LEVEL_SETTING}: {level}, as clusterManager has it")]
    given = settings[LEVEL_SETTING]
    if given == level:
        return []
    path = ("extensions", number, "settings", LEVEL_SETTING)
    return [(path, f"must be {level.value!r}, as clusterManager.durabilityLevel, not {given!r}")]
