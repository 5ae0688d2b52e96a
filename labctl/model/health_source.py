"""Where the health of instances comes from."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from labctl.model import spec_rules as rules
from labctl.model.quantity import Duration, format_duration
from labctl.model.strict import Strict


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
