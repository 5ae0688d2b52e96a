"""How instances get another model or OS image."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from labctl.model.control import ApprovalPolicy, CanaryPolicy, UpgradeControl
from labctl.model.hook import Hooks
from labctl.model.quantity import Duration
from labctl.model.strict import Strict
from labctl.model.window import MaintenanceWindow


class UpgradeMode(StrEnum):
    """What happens to instances when the model changes."""

    MANUAL = "Manual"  # nothing, until `labctl update-instances` or an upgrade
    AUTOMATIC = "Automatic"  # all get it at once
    ROLLING = "Rolling"  # batch by batch, gated by health


class RollingUpgradePolicy(Strict):
    """How many instances an upgrade touches at once, and when it stops."""

    max_batch_instance_percent: int = Field(default=20, ge=5, le=100)
    max_unhealthy_instance_percent: int = Field(default=20, ge=5, le=100)
    max_unhealthy_upgraded_instance_percent: int = Field(default=20, ge=0, le=100)
    pause_time_between_batches: Duration = Field(
        default=timedelta(0), ge=timedelta(0), le=timedelta(hours=12)
    )
    prioritize_unhealthy_instances: bool = False
    enable_cross_zone_upgrade: bool = Field(
        default=False, description="Let a batch have instances of several zones"
    )
    max_surge: bool = Field(
        default=False, description="New instances come first, and take the place of the old ones"
    )
    rollback_failed_instances_on_policy_breach: bool = False


class AutomaticOsUpgradePolicy(Strict):
    """Upgrades that the platform starts by itself."""

    enable_automatic_os_upgrade: bool = Field(default=False, alias="enableAutomaticOSUpgrade")
    disable_automatic_rollback: bool = False
    use_rolling_upgrade_policy: bool = Field(
        default=True, description="Without: the defaults of rollingUpgradePolicy hold"
    )


class UpgradePolicy(Strict):
    """How instances get another model or OS image."""

    mode: Annotated[UpgradeMode, Field(strict=False)] = UpgradeMode.MANUAL
    rolling_upgrade_policy: RollingUpgradePolicy = RollingUpgradePolicy()
    automatic_os_upgrade_policy: AutomaticOsUpgradePolicy = Field(
        default=AutomaticOsUpgradePolicy(), alias="automaticOSUpgradePolicy"
    )
    health_timeout: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=5),
        le=timedelta(hours=2),
        description="How long an upgraded instance may take to become healthy",
    )
    maintenance_windows: tuple[MaintenanceWindow, ...] = Field(
        default=(),
        max_length=100,
        strict=False,
        description="When batches may begin; none: always",
    )
    approval: ApprovalPolicy | None = Field(
        default=None, description="A person says yes before batches begin"
    )
    canary: CanaryPolicy | None = Field(
        default=None, description="A small first batch that is watched for a while"
    )
    hooks: Hooks = Field(default=Hooks(), description="What runs around each stop by labctl")

    @property
    def automatic_limits(self) -> RollingUpgradePolicy:
        """What bounds the upgrades that the platform starts by itself."""
        if self.automatic_os_upgrade_policy.use_rolling_upgrade_policy:
            return self.rolling_upgrade_policy
        return RollingUpgradePolicy()

    @property
    def control(self) -> UpgradeControl:
        """What an upgrade takes over when it starts, beside its limits."""
        return UpgradeControl(approval=self.approval, canary=self.canary)
