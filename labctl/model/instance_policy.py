"""Who leaves when the capacity shrinks, and what is done to the unhealthy."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from labctl.model.quantity import Duration
from labctl.model.strict import Strict


class ScaleInRule(StrEnum):
    """Who leaves first when the capacity shrinks; from the fullest zone in any case."""

    DEFAULT = "Default"  # of the fullest zone and fault domain, the highest ordinal
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
