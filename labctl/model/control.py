"""How an upgrade may be held back by policy, beside its limits."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from labctl.model import spec_rules as rules
from labctl.model.program import Argument, find_program_faults
from labctl.model.quantity import Duration
from labctl.model.strict import Strict
from labctl.model.webhook import Webhook


class ApprovalScope(StrEnum):
    """Which batches need the approval of a person."""

    FIRST_BATCH = "FirstBatch"
    EACH_BATCH = "EachBatch"


class ApprovalDefault(StrEnum):
    """What the silence of a person means."""

    REJECT = "Reject"
    APPROVE = "Approve"


class ApprovalPolicy(Strict):
    """A person says yes before batches begin; or a program or a server of theirs does."""

    before: Annotated[ApprovalScope, Field(strict=False)] = ApprovalScope.FIRST_BATCH
    timeout: Duration = Field(
        default=timedelta(hours=1), ge=timedelta(minutes=1), le=timedelta(days=7)
    )
    on_timeout: Annotated[ApprovalDefault, Field(strict=False)] = ApprovalDefault.REJECT
    command: tuple[Argument, ...] | None = Field(
        default=None, strict=False, description="Run on this host; exit code 0 approves"
    )
    webhook: Webhook | None = Field(default=None, description="Asked by a POST of JSON")

    @model_validator(mode="after")
    def _require_one_source_at_most(self) -> Self:
        if self.command is not None and self.webhook is not None:
            raise ValueError("must have at most one of 'command' and 'webhook'")
        rules.require(find_program_faults(self.command))
        return self

    @property
    def asked(self) -> str:
        """Who is asked, for people."""
        if self.command is not None:
            return f"the command {self.command[0]!r}"
        return "a person" if self.webhook is None else f"the webhook {self.webhook.host}"


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
