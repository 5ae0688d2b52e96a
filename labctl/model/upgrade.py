"""A rolling upgrade of the OS image or the model of a scale set, and its history."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from labctl.model.control import NO_CONTROL, UpgradeControl
from labctl.model.upgrade_policy import RollingUpgradePolicy


class UpgradeCode(StrEnum):
    """runningStatus.code of the page."""

    ROLLING_FORWARD = "RollingForward"
    ROLLING_BACK = "RollingBack"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"
    FAULTED = "Faulted"

    @property
    def is_final(self) -> bool:
        """Has the upgrade ended?"""
        return self not in {UpgradeCode.ROLLING_FORWARD, UpgradeCode.ROLLING_BACK}


class StartedBy(StrEnum):
    """Who started an upgrade."""

    USER = "User"
    PLATFORM = "Platform"


class UpgradePurpose(StrEnum):
    """What an instance must have to be done with."""

    OS_IMAGE = "OsImage"  # the image; those that change it get the newest model on the way
    MODEL = "Model"  # the image and the model


class MemberState(StrEnum):
    """How far an upgrade is with one instance."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"  # not healthy on the new disk, and not restored
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"  # healthy again on the previous disk
    ROLLBACK_FAILED = "RollbackFailed"
    SKIPPED = "Skipped"  # deleted or stopped by its user meanwhile, or its application asked for it

    @property
    def is_moving(self) -> bool:
        """Does the present batch still wait for it?"""
        return self in {MemberState.IN_PROGRESS, MemberState.ROLLING_BACK}

    @property
    def has_failed(self) -> bool:
        """Did the new disk not become healthy here?"""
        return self in {
            MemberState.FAILED,
            MemberState.ROLLING_BACK,
            MemberState.ROLLED_BACK,
            MemberState.ROLLBACK_FAILED,
        }


class UpgradeErrorCode(StrEnum):
    """Codes that Azure documents; the last three are our own."""

    UNHEALTHY_BEFORE = "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"
    UNHEALTHY_DURING = "MaxUnhealthyInstancePercentExceededInRollingUpgrade"
    UNHEALTHY_UPGRADED = "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"
    CREDENTIAL_REFUSED = "ExtensionCredentialRefused"
    CANARY_UNHEALTHY = "CanaryUnhealthyInRollingUpgrade"
    DRAIN_FAILED = "DrainFailedInRollingUpgrade"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeError:
    """Why an upgrade faulted."""

    code: UpgradeErrorCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One instance in an upgrade."""

    instance: str
    ordinal: int
    state: MemberState = MemberState.PENDING
    batch: int | None = None  # 1 is the first
    from_generation: int | None = None  # set when the batch begins
    to_generation: int | None = None
    from_version: str = ""
    from_model: int | None = None  # the revision, set when the batch begins
    phase: int | None = None  # by custom metrics at the start; None: the last phase
    skips_upgrade: bool = False  # by custom metrics at the start
    admitted_at: datetime | None = None  # its batch began
    stopped_at: datetime | None = None  # the old disk's shutdown began
    settled_at: datetime | None = None  # extensions ended on the disk that is being waited for
    healthy_at: datetime | None = None
    ended_at: datetime | None = None
    message: str = ""
    replaced_by: str | None = None  # by maxSurge: the new instance that came for it

    @property
    def carrier(self) -> str:
        """The instance that is to become healthy on the target."""
        return self.replaced_by or self.instance

    @property
    def pair(self) -> tuple[str, ...]:
        """The instance, and the one that came for it."""
        return (self.instance,) if self.replaced_by is None else (self.instance, self.replaced_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """One attempt. Everything that bounds it is copied into it at the start."""

    id: int
    scale_set: str
    started_by: StartedBy
    target_version: str
    target_digest: str
    model_revision: int  # the model that upgraded instances get
    purpose: UpgradePurpose = UpgradePurpose.OS_IMAGE
    policy: RollingUpgradePolicy
    health_timeout: timedelta
    restores: bool  # put the previous OS disk back where an instance does not recover
    code: UpgradeCode = UpgradeCode.ROLLING_FORWARD
    started_at: datetime
    ended_at: datetime | None = None
    control: UpgradeControl = NO_CONTROL
    approval_asked_at: datetime | None = None  # for the next batch
    approved_batch: int = 0  # the last one that a person has approved
    cancel_asked_at: datetime | None = None
    cancel_reason: str = ""  # where its user gave one
    end_reason: str = ""
    ignores_windows: bool = False  # asked for by its user; others wait for maintenance windows
    paused_at: datetime | None = None  # by its user; the present batch still finishes
    batch_ended_at: datetime | None = None  # the pause counts from here; None while a batch is open
    batches: int = 0  # batches begun
    members: tuple[Member, ...]
    error: UpgradeError | None = None

    @property
    def target(self) -> str:
        """What it brings, for people."""
        is_model = self.purpose is UpgradePurpose.MODEL
        suffix = f" with model {self.model_revision}" if is_model else ""
        return f"{self.target_version}{suffix}"

    @property
    def keeps_way_back(self) -> bool:
        """Must what an instance ran before be restorable? Then it always gets a new OS disk."""
        return self.restores or self.policy.rollback_failed_instances_on_policy_breach

    @property
    def counts(self) -> dict[str, int]:
        """The page's counters of progress."""
        states = [member.state for member in self.members]
        return {
            "successfulInstanceCount": states.count(MemberState.SUCCEEDED),
            "failedInstanceCount": sum(state.has_failed for state in states),
            "inProgressInstanceCount": states.count(MemberState.IN_PROGRESS),
            "pendingInstanceCount": states.count(MemberState.PENDING),
        }
