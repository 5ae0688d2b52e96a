"""Which instances to add and which to take away, so that there are as many as wanted."""

from labctl.model.instance import Instance, Wanted
from labctl.model.plan import CreateInstance, Decision, Hold, Plan, RemoveInstance, ScaleSet
from labctl.planner.situation import has_served


def plan_scaling(scale_set: ScaleSet) -> Plan:
    """Decisions that bring the number of instances to the capacity; a stopped one counts."""
    kept = [i for i in scale_set.instances if i.wanted is not Wanted.DELETED]
    if scale_set.is_deleting:
        removals = sorted(kept, key=lambda i: i.ordinal)
        return Plan(decisions=_remove(removals, "the scale set is being deleted"))
    capacity = scale_set.spec.capacity
    reason = f"capacity is {capacity}, present are {len(kept)}"
    if len(kept) > capacity:
        leaving = sorted(kept, key=_scale_in_order)[: len(kept) - capacity]
        return Plan(decisions=_remove(leaving, reason))
    return _plan_scale_out(scale_set, kept, reason)


def _remove(instances: list[Instance], reason: str) -> tuple[Decision, ...]:
    return tuple(RemoveInstance(instance=i.name, reason=reason) for i in instances)


def _scale_in_order(instance: Instance) -> tuple[bool, int]:
    """Those that never got ready first: nobody misses them. Then the newest first."""
    return has_served(instance), -instance.ordinal


def _plan_scale_out(scale_set: ScaleSet, kept: list[Instance], reason: str) -> Plan:
    """Create the lowest ordinals that are missing.

    Data disks are kept by ordinal, so scaling in and out again gives the same disks back. An
    ordinal whose instance is still being deleted is waited for, not passed over.
    """
    missing = scale_set.spec.capacity - len(kept)
    taken = {i.ordinal for i in kept}
    free = [n for n in range(len(taken) + missing) if n not in taken][:missing]
    leaving = {i.ordinal: i for i in scale_set.instances if i.wanted is Wanted.DELETED}
    return Plan(
        decisions=tuple(CreateInstance(ordinal=n, reason=reason) for n in free if n not in leaving),
        holds=tuple(
            Hold(
                subject=scale_set.name,
                reason=f"{leaving[n].name} is created again when its deletion is through",
            )
            for n in free
            if n in leaving
        ),
    )
