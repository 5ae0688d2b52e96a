"""What runs around a stop by labctl: takes an instance out of service, and puts it back."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from labctl.model import spec_rules as rules
from labctl.model.program import Argument, find_program_faults
from labctl.model.quantity import Duration
from labctl.model.strict import Strict


class HookKind(StrEnum):
    """When a hook runs."""

    DRAIN = "drain"  # before labctl stops an instance
    UNDRAIN = "undrain"  # once it is healthy again


class OnHookFailure(StrEnum):
    """What comes of a hook that fails."""

    STOP = "Stop"
    CONTINUE = "Continue"


class Hook(Strict):
    """Exactly one of command and script."""

    command: tuple[Argument, ...] | None = Field(
        default=None, strict=False, description="Program and arguments, run on this host"
    )
    script: str | None = Field(default=None, description="Run in the guest, as root over SSH")
    timeout: Duration = Field(
        default=timedelta(minutes=5), ge=timedelta(seconds=1), le=timedelta(hours=2)
    )
    on_failure: Annotated[OnHookFailure, Field(strict=False)] = OnHookFailure.STOP

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.command is None) == (self.script is None):
            raise ValueError("must have exactly one of 'command' and 'script'")
        faults = find_program_faults(self.command)
        if self.script is not None and not self.script.strip():
            faults.append((("script",), "must not be empty"))
        too_long = rules.find_size_fault(self.script, rules.SCRIPT_LIMIT)
        if too_long:
            faults.append((("script",), too_long))
        rules.require(faults)
        return self


class Hooks(Strict):
    """What runs around each stop by labctl."""

    drain: Hook | None = Field(
        default=None, description="Takes an instance out of service, before it is stopped"
    )
    undrain: Hook | None = Field(
        default=None, description="Puts it back into service, once it is healthy"
    )

    def find(self, kind: HookKind) -> Hook | None:
        """The hook of that kind, if there is one."""
        return self.drain if kind is HookKind.DRAIN else self.undrain


NO_HOOKS = Hooks()
