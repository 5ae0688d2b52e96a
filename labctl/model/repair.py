"""Automatic repairs of unhealthy instances: what was tried, and whether the service runs."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from labctl.model.instance_policy import RepairAction


class RepairOutcome(StrEnum):
    """How a repair ended."""

    HEALTHY = "Healthy"
    FAILED = "Failed"  # done, and still unhealthy after the grace period
    CANCELLED = "Cancelled"  # a person came in between


class ServiceState(StrEnum):
    """serviceState of Azure's orchestration service AutomaticRepairs."""

    NOT_RUNNING = "NotRunning"  # not enabled in the spec
    RUNNING = "Running"
    SUSPENDED = "Suspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One attempt on one ordinal; a replaced instance is another instance of the same ordinal."""

    id: int
    instance: str
    ordinal: int
    action: RepairAction
    began_at: datetime
    reason: str
    ended_at: datetime | None = None
    outcome: RepairOutcome | None = None
    message: str = ""

    @property
    def is_open(self) -> bool:
        """Is the instance still to become healthy by it?"""
        return self.ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairService:
    """Whether a scale set may be repaired, apart from its policy."""

    suspended_at: datetime | None = None
    suspended_reason: str = ""
    resumed_at: datetime | None = None  # what failed before counts no more

    @property
    def is_suspended(self) -> bool:
        """Has it been stopped, by repeated failure or by hand?"""
        return self.suspended_at is not None

    def state(self, *, is_enabled: bool) -> ServiceState:
        """The state that is shown, given whether the policy enables repairs."""
        if not is_enabled:
            return ServiceState.NOT_RUNNING
        return ServiceState.SUSPENDED if self.is_suspended else ServiceState.RUNNING


NEVER_SUSPENDED = RepairService()
