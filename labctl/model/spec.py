"""The spec of a scale set: what the user wants. Validated once, then trusted."""

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from labctl.model import spec_rules as rules
from labctl.model.cluster import ClusterManager, find_cluster_faults
from labctl.model.health_source import Health
from labctl.model.instance_policy import AutomaticRepairsPolicy, ScaleInPolicy
from labctl.model.machine import NAME_PATTERN, DataDisk, ImageReference, MachineSize, OsDisk
from labctl.model.notification import Notification
from labctl.model.quantity import Duration
from labctl.model.setup import CustomData, Extension
from labctl.model.strict import Strict
from labctl.model.upgrade_policy import UpgradeMode, UpgradePolicy
from labctl.model.windows import WindowsConfiguration, find_windows_faults

DEFAULT_REGION = "local"
ZONE_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
SUBNET_PREFIX = 22  # of subnets that labctl chooses: 1000 instances fit
RESERVED_ADDRESSES = 10  # network, bridge and room for a person's own machines


class Network(Strict):
    """How instances reach the network and are reached. It cannot be changed later."""

    type: Literal["user", "nat"] = "user"
    subnet: str | None = Field(
        default=None, description="For nat: an IPv4 network, for example 10.87.1.0/24"
    )

    @property
    def room(self) -> int | None:
        """How many instances have addresses in the subnet; None: they need none."""
        if self.type != "nat":
            return None
        if self.subnet is None:
            return (1 << 32 - SUBNET_PREFIX) - RESERVED_ADDRESSES - 1
        return ipaddress.IPv4Network(self.subnet).num_addresses - RESERVED_ADDRESSES - 1

    @model_validator(mode="after")
    def _require_usable_subnet(self) -> Self:
        if self.subnet is None:
            return self
        if self.type != "nat":
            raise rules.RuleError([(("subnet",), "is only for networks of type nat")])
        fault = rules.find_subnet_fault(self.subnet)
        rules.require([(("subnet",), fault)] if fault else [])
        return self


class Timeouts(Strict):
    """How long the steps of a boot may take. The defaults grow where the host only emulates."""

    boot: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="Power-on to SSH; default 2m, Windows 15m; emulated five times that",
    )
    custom_data: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="SSH to the end of custom data; default 10m, emulated 50m",
    )
    shutdown: Duration = Field(
        default=timedelta(seconds=60),
        gt=timedelta(0),
        description="A guest that has not switched itself off by then is destroyed",
    )


class ScaleSetSpec(Strict):
    """The whole spec. `custom_data.inline` and `script` are filled in when files were named."""

    name: str = Field(pattern=NAME_PATTERN)
    capacity: int = Field(ge=0, le=1000)
    region: str = Field(
        default=DEFAULT_REGION,
        pattern=NAME_PATTERN,
        description="Which image versions `latest` can mean: those that are replicated to it",
    )
    zones: tuple[Annotated[str, Field(pattern=ZONE_NAME_PATTERN)], ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        description="Labels that instances get in turn; they order upgrades and scale-in",
    )
    fault_domain_count: int = Field(default=1, ge=1, le=20, description="In each zone")
    update_domain_count: int = Field(default=5, ge=1, le=20, description="In each zone")
    size: MachineSize = MachineSize()
    image: ImageReference
    os_disk: OsDisk = OsDisk()
    data_disks: tuple[DataDisk, ...] = Field(default=(), strict=False)
    ssh_keys: tuple[str, ...] = Field(default=(), strict=False)
    custom_data: CustomData | None = None
    extensions: tuple[Extension, ...] = Field(default=(), strict=False)
    extensions_time_budget: Duration = Field(
        default=timedelta(minutes=90), ge=timedelta(minutes=15), le=timedelta(hours=2)
    )
    health: Health = Health()
    network: Network = Network()
    timeouts: Timeouts = Timeouts()
    upgrade_policy: UpgradePolicy = UpgradePolicy()
    windows_configuration: WindowsConfiguration | None = Field(
        default=None, description="For Windows images, and required there; may be {}"
    )
    scale_in_policy: ScaleInPolicy = ScaleInPolicy()
    automatic_repairs_policy: AutomaticRepairsPolicy = AutomaticRepairsPolicy()
    cluster_manager: ClusterManager | None = Field(
        default=None, description="For instances that form a cluster with a manager of its own"
    )

    @field_validator("zones")
    @classmethod
    def _require_distinct_zones(cls, zones: tuple[str, ...]) -> tuple[str, ...]:
        repeated = rules.find_repeated(zones, "", "zone")
        rules.require([(path[:1], fault) for path, fault in repeated])
        return zones

    @property
    def is_windows(self) -> bool:
        """Are its instances Windows? `apply` compares that with the image."""
        return self.windows_configuration is not None

    notifications: tuple[Notification, ...] = Field(default=(), max_length=20, strict=False)

    @field_validator("data_disks")
    @classmethod
    def _require_distinct_disks(cls, disks: tuple[DataDisk, ...]) -> tuple[DataDisk, ...]:
        rules.require(
            [
                *rules.find_repeated([disk.name for disk in disks], "name", "name"),
                *rules.find_seed_names([disk.name for disk in disks]),
                *rules.find_repeated(
                    [disk.mount_point for disk in disks], "mountPoint", "mount point"
                ),
            ]
        )
        return disks

    @field_validator("ssh_keys")
    @classmethod
    def _require_public_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        faults = [((place,), rules.find_key_fault(key)) for place, key in enumerate(keys)]
        rules.require([(path, fault) for path, fault in faults if fault is not None])
        return keys

    @field_validator("notifications")
    @classmethod
    def _require_distinct_receivers(
        cls, receivers: tuple[Notification, ...]
    ) -> tuple[Notification, ...]:
        rules.require(rules.find_repeated([each.name for each in receivers], "name", "name"))
        return receivers

    @field_validator("extensions")
    @classmethod
    def _require_possible_order(cls, extensions: tuple[Extension, ...]) -> tuple[Extension, ...]:
        rules.require(rules.find_repeated([each.name for each in extensions], "name", "name"))
        rules.require(
            rules.find_order_faults(
                {each.name: each.provision_after_extensions for each in extensions}
            )
        )
        return extensions

    @model_validator(mode="after")
    def _require_health_for_rolling(self) -> Self:
        is_rolling = self.upgrade_policy.mode is UpgradeMode.ROLLING
        if is_rolling and self.health.application_health is None and self.health.probe is None:
            raise rules.RuleError(
                [
                    (
                        ("upgradePolicy", "mode"),
                        "'Rolling' needs health.applicationHealth or health.probe",
                    )
                ]
            )
        return self

    @model_validator(mode="after")
    def _require_what_clusters_need(self) -> Self:
        if self.cluster_manager is not None:
            rules.require(
                find_cluster_faults(
                    self.cluster_manager,
                    extensions=self.extensions,
                    health=self.health,
                    upgrade_policy=self.upgrade_policy,
                    repairs=self.automatic_repairs_policy,
                )
            )
        return self

    @model_validator(mode="after")
    def _require_that_no_data_stays_behind(self) -> Self:
        if self.upgrade_policy.rolling_upgrade_policy.max_surge and self.data_disks:
            at = ("upgradePolicy", "rollingUpgradePolicy", "maxSurge")
            fault = "cannot be had with dataDisks: new instances replace the old ones, and the data"
            rules.require([(at, f"{fault} would stay behind")])
        return self

    @model_validator(mode="after")
    def _require_what_repairs_need(self) -> Self:
        if self.automatic_repairs_policy.enabled and not (
            self.health.application_health or self.health.probe
        ):
            at = ("automaticRepairsPolicy", "enabled")
            rules.require([(at, "needs health.applicationHealth or health.probe")])
        return self

    @model_validator(mode="after")
    def _require_what_automatic_upgrades_need(self) -> Self:
        policy = self.upgrade_policy.automatic_os_upgrade_policy
        if not policy.enable_automatic_os_upgrade:
            return self
        faults: rules.Faults = []
        at = ("upgradePolicy", "automaticOSUpgradePolicy", "enableAutomaticOSUpgrade")
        if self.image.version != "latest":
            faults.append((at, "needs image.version to be 'latest'"))
        has_source = self.health.application_health is not None or self.health.probe is not None
        if not has_source and self.cluster_manager is None:  # a cluster knows how its members are
            faults.append((at, "needs health.applicationHealth or health.probe"))
        rules.require(faults)
        return self

    @model_validator(mode="after")
    def _require_what_the_system_can_do(self) -> Self:
        policy = self.upgrade_policy.automatic_os_upgrade_policy
        rules.require(
            find_windows_faults(
                self.windows_configuration,
                data_disks=self.data_disks,
                extensions=self.extensions,
                custom_data=None if self.custom_data is None else self.custom_data.inline,
                is_upgraded_automatically=policy.enable_automatic_os_upgrade,
            )
        )
        return self
