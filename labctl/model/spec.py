"""The spec of a scale set: what the user wants. Validated once, then trusted."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from labctl.model import extension_rules
from labctl.model import spec_rules as rules
from labctl.model.control import ApprovalPolicy, CanaryPolicy, UpgradeControl
from labctl.model.quantity import Duration, Size, format_duration
from labctl.model.strict import Strict
from labctl.model.window import MaintenanceWindow

MIB = 2**20
GIB = 2**30
TIB = 2**40
DEFAULT_REGION = "local"

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
DISK_NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$"  # a virtio serial holds 20 characters


def _require_whole_mebibytes(size: int) -> int:
    if size % MIB:
        raise ValueError("must be a whole number of MiB")
    return size


DiskSize = Annotated[Size, Field(ge=MIB, le=64 * TIB), AfterValidator(_require_whole_mebibytes)]
MemorySize = Annotated[
    Size, Field(ge=64 * MIB, le=4 * TIB), AfterValidator(_require_whole_mebibytes)
]


class MachineSize(Strict):
    """Processors and memory of each instance."""

    vcpus: int = Field(default=1, ge=1, le=64)
    memory: MemorySize = 512 * MIB


class ImageReference(Strict):
    """Which image version to run."""

    definition: str = Field(pattern=NAME_PATTERN)
    version: str = Field(default="latest", pattern=r"^(latest|\d+\.\d+\.\d+)$")


class OsDisk(Strict):
    """The disk that an image upgrade replaces."""

    size: DiskSize | None = Field(
        default=None, description="At least the image's size; default: equal"
    )


class DataDisk(Strict):
    """A disk that outlives every OS disk."""

    name: str = Field(pattern=DISK_NAME_PATTERN)
    size: DiskSize
    file_system: Literal["ext4"] | None = Field(
        default=None, description="Made on an empty disk; a disk that holds anything is left as is"
    )
    mount_point: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9._/-]+$")

    @field_validator("mount_point")
    @classmethod
    def _require_clean_path(cls, path: str | None) -> str | None:
        if path is not None and {"", ".", ".."} & set(path[1:].split("/")):
            raise ValueError("must be an absolute path without '.', '..', '//' or a '/' at its end")
        return path


class CustomData(Strict):
    """What the instance runs once on each new OS disk. Exactly one of `inline` and `file`."""

    inline: str | None = None
    file: str | None = Field(default=None, description="Path, relative to the spec file")

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.inline is None) == (self.file is None):
            raise ValueError("must have exactly one of 'inline' and 'file'")
        fault = rules.find_size_fault(self.inline, rules.CUSTOM_DATA_LIMIT)
        rules.require([(("inline",), fault)] if fault else [])
        return self


class Extension(Strict):
    """What labctl runs on each new OS disk. Exactly one of script, file, url and playbook."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[ -~]+$")
    script: str | None = None
    file: str | None = Field(default=None, description="Path, relative to the spec file")
    url: str | None = Field(default=None, description="Fetched by the controller; needs sha256")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    allow_http: bool = Field(
        default=False, description="Allow plain http to loopback and private addresses"
    )
    playbook: str | None = Field(
        default=None, description="Ansible playbook; path, relative to the spec file"
    )
    settings: dict[str, JsonValue] = Field(default={}, description="Handed to the script; public")
    protected_settings: dict[str, JsonValue] = Field(
        default={}, repr=False, description="The same, but never printed, logged or shown"
    )
    protected_settings_file: str | None = Field(
        default=None, description="YAML or JSON file (0600) with them, relative to the spec file"
    )
    suppress_failures: bool = False
    force_update_tag: str | None = Field(
        default=None, min_length=1, max_length=80, pattern=r"^[ -~]+$"
    )
    timeout: Duration = Field(default=timedelta(minutes=10), gt=timedelta(0))
    provision_after_extensions: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        sources = (self.script, self.file, self.url, self.playbook)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("must have exactly one of 'script', 'file', 'url' and 'playbook'")
        faults: rules.Faults = []
        if self.script is not None and not self.script.strip():
            faults.append((("script",), "must not be empty"))
        too_long = rules.find_size_fault(self.script, rules.SCRIPT_LIMIT)
        if too_long:
            faults.append((("script",), too_long))
        faults += self._find_url_faults()
        if self.protected_settings and self.protected_settings_file is not None:
            faults.append((("protectedSettingsFile",), "is given beside protectedSettings"))
        faults += extension_rules.find_settings_faults(self.settings, "settings")
        faults += extension_rules.find_protected_faults(
            self.protected_settings, has_url=self.url is not None
        )
        rules.require(faults)
        return self

    def _find_url_faults(self) -> rules.Faults:
        if self.url is None:
            return [
                ((key,), "is only for extensions with a url")
                for key, value in (("sha256", self.sha256), ("allowHttp", self.allow_http))
                if value
            ]
        fault = extension_rules.find_url_fault(self.url, allow_http=self.allow_http)
        faults: rules.Faults = [(("url",), fault)] if fault else []
        if self.sha256 is None:
            faults.append((("url",), "needs sha256, the checksum of what it gives"))
        return faults

    @field_serializer("protected_settings")
    def _mask(
        self, settings: dict[str, JsonValue], info: SerializationInfo
    ) -> dict[str, JsonValue]:
        # Masked unless it is asked for: only the store, a file with mode 0600, does that.
        is_revealed = isinstance(info.context, dict) and info.context.get("reveal") is True
        return settings if is_revealed else extension_rules.mask(settings)


class Protocol(StrEnum):
    """How a health probe asks."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"


def _default_port(fields: dict[str, Any]) -> int | None:
    return {Protocol.HTTP: 80, Protocol.HTTPS: 443}.get(fields["protocol"])


class HealthProbe(Strict):
    """What is asked for health, by the agent in the guest or by the controller."""

    protocol: Annotated[Protocol, Field(strict=False)] = Protocol.HTTP
    port: int | None = Field(
        default_factory=_default_port,
        ge=1,
        le=65535,
        description="Mandatory for tcp; default for http 80, for https 443",
    )
    request_path: str | None = Field(
        default=None, pattern=r"^/[!-~]*$", description="Mandatory for http and https"
    )
    interval: Duration = Field(
        default=timedelta(seconds=5), ge=timedelta(seconds=5), le=timedelta(seconds=60)
    )
    number_of_probes: int = Field(default=1, ge=1, le=24)

    @model_validator(mode="after")
    def _require_what_the_protocol_needs(self) -> Self:
        faults: rules.Faults = []
        if self.port is None:
            faults.append((("port",), f"is mandatory for {self.protocol}"))
        if self.protocol is Protocol.TCP and self.request_path is not None:
            faults.append((("requestPath",), "is only for http and https, not for tcp"))
        if self.protocol is not Protocol.TCP and self.request_path is None:
            faults.append((("requestPath",), f"is mandatory for {self.protocol}"))
        rules.require(faults)
        return self


LONGEST_GRACE = timedelta(hours=4)


class ApplicationHealth(HealthProbe):
    """What the agent in the guest asks, and how it understands the answer."""

    type_handler_version: Literal["1.0", "2.0"] = Field(
        default="1.0", description="1.0: the status code tells; 2.0: the body tells, rich states"
    )
    grace_period: Duration | None = Field(
        default=None,
        description="For 2.0: how long Initializing may last; default: interval x numberOfProbes",
    )

    @field_validator("type_handler_version", mode="before")
    @classmethod
    def _accept_number(cls, version: object) -> object:
        # YAML takes an unquoted 2.0 for a number.
        return str(version) if isinstance(version, float) else version

    @model_validator(mode="after")
    def _require_sensible_grace(self) -> Self:
        if self.grace_period is None:
            return self
        faults: rules.Faults = []
        if not self.is_rich:
            faults.append((("gracePeriod",), "is only for typeHandlerVersion 2.0"))
        # Here and not as bounds: those of a duration that may be None are told in Python.
        if not timedelta(0) < self.grace_period <= LONGEST_GRACE:
            given = format_duration(self.grace_period)
            faults.append((("gracePeriod",), f"must be more than 0s and at most 4h, not {given}"))
        rules.require(faults)
        return self

    @property
    def is_rich(self) -> bool:
        """Does it know Initializing and Unknown?"""
        return self.type_handler_version == "2.0"


class Health(Strict):
    """Where health comes from; at most one source. Neither: power state and extensions."""

    application_health: ApplicationHealth | None = None
    probe: HealthProbe | None = None

    @model_validator(mode="after")
    def _require_one_source_at_most(self) -> Self:
        if self.application_health is not None and self.probe is not None:
            raise ValueError("must have at most one of 'applicationHealth' and 'probe'")
        return self


class Network(Strict):
    """How instances reach the network and are reached. It cannot be changed later."""

    type: Literal["user", "nat"] = "user"
    subnet: str | None = Field(
        default=None, description="For nat: an IPv4 network, for example 10.87.1.0/24"
    )

    @model_validator(mode="after")
    def _require_usable_subnet(self) -> Self:
        if self.subnet is None:
            return self
        if self.type != "nat":
            raise rules.RuleError([(("subnet",), "is only for networks of type nat")])
        fault = rules.find_subnet_fault(self.subnet)
        rules.require([(("subnet",), fault)] if fault else [])
        return self


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


class AutomaticOsUpgradePolicy(Strict):
    """Upgrades that the platform starts by itself."""

    enable_automatic_os_upgrade: bool = Field(default=False, alias="enableAutomaticOSUpgrade")
    disable_automatic_rollback: bool = False


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

    @property
    def control(self) -> UpgradeControl:
        """What an upgrade takes over when it starts, beside its limits."""
        return UpgradeControl(approval=self.approval, canary=self.canary)


class ScaleInRule(StrEnum):
    """Who leaves first when the capacity shrinks."""

    DEFAULT = "Default"  # the highest ordinals
    OLDEST_VM = "OldestVM"
    NEWEST_VM = "NewestVM"


class ScaleInPolicy(Strict):
    """Who leaves first when the capacity shrinks; protected instances never do."""

    rules: tuple[Annotated[ScaleInRule, Field(strict=False)], ...] = Field(
        default=(ScaleInRule.DEFAULT,), min_length=1, max_length=1, strict=False
    )


class RepairAction(StrEnum):
    """What is done to an unhealthy instance."""

    REPLACE = "Replace"  # deleted and made again; data disks come back
    REIMAGE = "Reimage"  # a new OS disk of the same image version
    RESTART = "Restart"


class AutomaticRepairsPolicy(Strict):
    """Repairs of unhealthy instances, wherever a controller works on the scale set."""

    enabled: bool = False
    grace_period: Duration = Field(
        default=timedelta(minutes=10),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=90),
        description="From the last change of an instance to its first repair; Azure allows no "
        "less than 10m",
    )
    repair_action: Annotated[RepairAction, Field(strict=False)] = RepairAction.REPLACE


class Timeouts(Strict):
    """How long the steps of a boot may take. The defaults grow where the host only emulates."""

    boot: Duration | None = Field(
        default=None, gt=timedelta(0), description="Power-on to SSH; default 2m, emulated 10m"
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
    scale_in_policy: ScaleInPolicy = ScaleInPolicy()
    automatic_repairs_policy: AutomaticRepairsPolicy = AutomaticRepairsPolicy()

    @field_validator("data_disks")
    @classmethod
    def _require_distinct_disks(cls, disks: tuple[DataDisk, ...]) -> tuple[DataDisk, ...]:
        rules.require(
            [
                *rules.find_repeated([disk.name for disk in disks], "name", "name"),
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
        if self.health.application_health is None and self.health.probe is None:
            faults.append((at, "needs health.applicationHealth or health.probe"))
        rules.require(faults)
        return self
