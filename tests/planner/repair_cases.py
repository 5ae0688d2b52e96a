"""Instances and sets in need of repair."""

from datetime import timedelta

from labctl.model.instance import (
    Health,
    HealthState,
    Instance,
)
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from labctl.model.plan import Hold, ScaleSet
from labctl.model.repair import Repair, RepairOutcome
from labctl.planner import plan
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
    make_set,
    make_spec,
)

SICK = Health(
    state=HealthState.UNHEALTHY, since=T0 - timedelta(minutes=1), detail="HTTP 503 from /health"
)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def make_policy(**values) -> AutomaticRepairsPolicy:
    return AutomaticRepairsPolicy(**({"enabled": True, "repair_action": "Restart"} | values))


def make_sick(ordinal: int, **changes) -> Instance:
    return make_instance(ordinal, **({"health": SICK} | changes))


def repairing(*instances: Instance, policy=None, **changes) -> ScaleSet:
    spec = make_spec(len(instances), automatic_repairs_policy=policy or make_policy())
    return make_set(len(instances), spec=spec, instances=instances, **changes)


def make_repair(ordinal: int, *, id: int = 1, **changes) -> Repair:  # noqa: A002
    values = {
        "instance": f"web_{ordinal}",
        "ordinal": ordinal,
        "action": RepairAction.RESTART,
        "began_at": T0 - timedelta(minutes=30),
        "reason": "unhealthy",
    }
    return Repair(id=id, **(values | changes))


def make_ended(ordinal: int, outcome: RepairOutcome, *, id: int, **changes) -> Repair:  # noqa: A002
    at = T0 - timedelta(hours=2) + id * MINUTE
    changes = {"began_at": at, "ended_at": at, "outcome": outcome} | changes
    return make_repair(ordinal, id=id, **changes)


def make_tried(ordinal: int, minutes: int = 20, **changes) -> Instance:
    """Unhealthy again, that long after a restart by an open repair."""
    at = T0 - timedelta(minutes=minutes)
    generation = make_generation(started_at=at, ready_at=at, extensions=RUN_LONG_AGO)
    return make_sick(ordinal, **({"generations": (generation,)} | changes))


RUN_LONG_AGO = make_generation().extensions


def decide(scale_set: ScaleSet, now=T0):
    return plan(scale_set, now).decisions


def hold_of(scale_set: ScaleSet, name: str = "web_0", now=T0) -> Hold | None:
    return next((h for h in plan(scale_set, now).holds if h.subject == name), None)
