"""How an upgrade may be held back by policy, beside its limits."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from labctl.model.quantity import Duration
from labctl.model.strict import Strict


class ApprovalScope(StrEnum):
    """Which batches need the approval of a person."""

    FIRST_BATCH = "FirstBatch"
    EACH_BATCH = "EachBatch"


class ApprovalDefault(StrEnum):
    """What the silence of a person means."""

    REJECT = "Reject"
    APPROVE = "Approve"


class ApprovalPolicy(Strict):
    """A person says yes before batches begin."""

    before: Annotated[ApprovalScope, Field(strict=False)] = ApprovalScope.FIRST_BATCH
    timeout: Duration = Field(
        default=timedelta(hours=1), ge=timedelta(minutes=1), le=timedelta(days=7)
    )
    on_timeout: Annotated[ApprovalDefault, Field(strict=False)] = ApprovalDefault.REJECT


class CanaryPolicy(Strict):
    """A small first batch that is watched for a while."""

    instances: int = Field(default=1, ge=1, le=1000)
    bake_time: Duration = Field(
        default=timedelta(minutes=10),
        ge=timedelta(0),
        le=timedelta(days=7),
        description="How long they must stay healthy before the next batch begins",
    )


class UpgradeControl(Strict):
    """What an upgrade takes over from the spec when it starts."""

    approval: ApprovalPolicy | None = None
    canary: CanaryPolicy | None = None


NO_CONTROL = UpgradeControl()
