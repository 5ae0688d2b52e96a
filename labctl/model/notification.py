"""Who is told what happens to a scale set, and about which things."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from labctl.model import spec_rules as rules
from labctl.model.machine import NAME_PATTERN
from labctl.model.webhook import Webhook


class Topic(StrEnum):
    """What an event is about; a receiver chooses by it. `upgrade` means all of `upgrade.*`."""

    UPGRADE_STARTED = "upgrade.started"
    UPGRADE_ENDED = "upgrade.ended"  # Completed or Cancelled
    UPGRADE_FAULTED = "upgrade.faulted"
    BATCH_STARTED = "batch.started"
    BATCH_ENDED = "batch.ended"
    APPROVAL_ASKED = "approval.asked"
    APPROVAL_ANSWERED = "approval.answered"
    HOOK_SUCCEEDED = "hook.succeeded"
    HOOK_FAILED = "hook.failed"
    REPAIR_STARTED = "repair.started"
    REPAIR_ENDED = "repair.ended"
    REPAIR_SUSPENDED = "repair.suspended"
    HEALTH = "health"
    FAILURE = "failure"
    WARNING = "warning"
    REQUEST = "request"
    DECISION = "decision"
    STEP = "step"
    RUNG = "rung"


class TopicFilter(StrEnum):
    """What a receiver can ask for: one topic, a group of them, or all."""

    ALL = "all"
    UPGRADE = "upgrade"
    UPGRADE_STARTED = "upgrade.started"
    UPGRADE_ENDED = "upgrade.ended"
    UPGRADE_FAULTED = "upgrade.faulted"
    BATCH = "batch"
    BATCH_STARTED = "batch.started"
    BATCH_ENDED = "batch.ended"
    APPROVAL = "approval"
    APPROVAL_ASKED = "approval.asked"
    APPROVAL_ANSWERED = "approval.answered"
    HOOK = "hook"
    HOOK_SUCCEEDED = "hook.succeeded"
    HOOK_FAILED = "hook.failed"
    REPAIR = "repair"
    REPAIR_STARTED = "repair.started"
    REPAIR_ENDED = "repair.ended"
    REPAIR_SUSPENDED = "repair.suspended"
    HEALTH = "health"
    FAILURE = "failure"
    WARNING = "warning"
    REQUEST = "request"
    DECISION = "decision"
    STEP = "step"
    RUNG = "rung"

    def matches(self, topic: str) -> bool:
        """Does it ask for this topic?"""
        return self is TopicFilter.ALL or topic == self or topic.startswith(f"{self}.")


DEFAULT_FILTERS = (
    TopicFilter.UPGRADE,
    TopicFilter.BATCH,
    TopicFilter.APPROVAL,
    TopicFilter.HOOK_FAILED,
    TopicFilter.REPAIR,
    TopicFilter.FAILURE,
)


class Notification(Webhook):
    """A receiver of what happens."""

    name: str = Field(pattern=NAME_PATTERN)
    events: tuple[Annotated[TopicFilter, Field(strict=False)], ...] = Field(
        default=DEFAULT_FILTERS, strict=False, description="What it is told"
    )

    @field_validator("events")
    @classmethod
    def _require_some(cls, events: tuple[TopicFilter, ...]) -> tuple[TopicFilter, ...]:
        # Here and not as a bound: that one complains of each unknown event, too.
        rules.require([] if events else [((), "must name at least one; 'all' is everything")])
        return events

    def wants(self, topic: str) -> bool:
        """Is it told about this topic?"""
        return any(each.matches(topic) for each in self.events)
