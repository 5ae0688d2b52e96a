"""Which instances to add and which to take away, so that there are as many as wanted."""

from typing import assert_never

from labctl.model.instance import Instance, Wanted
from labctl.model.instance_policy import ScaleInRule
from labctl.model.plan import CreateInstance, Decision, Hold, Plan, RemoveInstance, ScaleSet
from labctl.planner.situation import has_served
from labctl.planner.surge import find_newcomers, find_reserved


def plan_scaling(scale_set: ScaleSet) -> Plan:
    """Decisions that bring the number of instances to the capacity; a stopped one counts."""
    present = [i for i in scale_set.instances if i.wanted is not Wanted.DELETED]
    if scale_set.is_deleting:
        removals = sorted(present, key=lambda i: i.ordinal)
        return Plan(decisions=_remove(removals, "the scale set is being deleted"))
    newcomers = find_newcomers(scale_set)
    kept = [i for i in present if i.name not in newcomers]
    capacity = scale_set.spec.capacity
    reason = f"capacity is {capacity}, present are {len(kept)}"
    if len(kept) > capacity:
        return _plan_scale_in(scale_set, kept, reason)
    return _plan_scale_out(scale_set, kept, reason)


def _remove(instances: list[Instance], reason: str) -> tuple[Decision, ...]:
    return tuple(RemoveInstance(instance=i.name, reason=reason) for i in instances)


def _plan_scale_in(scale_set: ScaleSet, kept: list[Instance], reason: str) -> Plan:
    """Take away as many as are too many; never a protected one, even if too many remain."""
    excess = len(kept) - scale_set.spec.capacity
    rule = scale_set.spec.scale_in_policy.rules[0]
    free = [i for i in kept if not i.protect_from_scale_in]
    leaving = sorted(free, key=lambda i: _scale_in_order(i, rule))[:excess]
    if leaving:
        how = "" if rule is ScaleInRule.DEFAULT else f", {rule}"
        return Plan(decisions=_remove(leaving, reason + how))
    names = ", ".join(i.name for i in sorted(kept, key=lambda i: i.ordinal))
    hold = Hold(
        subject=scale_set.name,
        reason=f"{reason}, but all are protected from scale-in: {names}; raise the capacity, or: "
        "labctl instance unprotect INSTANCE",
    )
    return Plan(holds=(hold,))


def _scale_in_order(instance: Instance, rule: ScaleInRule) -> tuple[bool, float, int]:
    """Those that never got ready first: nobody misses them. Then by the rule."""
    # Default as Azure documents it: the highest instance id, which is not always the newest, for
    # one that was replaced keeps its ordinal. Those made in one turn are of the same age.
    age, ordinal = instance.created_at.timestamp(), instance.ordinal
    match rule:
        case ScaleInRule.DEFAULT:
            return has_served(instance), 0, -ordinal
        case ScaleInRule.OLDEST_VM:
            return has_served(instance), age, ordinal
        case ScaleInRule.NEWEST_VM:
            return has_served(instance), -age, -ordinal
        case _:
            assert_never(rule)


def _plan_scale_out(scale_set: ScaleSet, kept: list[Instance], reason: str) -> Plan:
    """Create the lowest ordinals that are missing.

    Data disks are kept by ordinal, so scaling in and out again gives the same disks back. An
    ordinal whose instance is still being deleted is waited for, not passed over.
    """
    missing = scale_set.spec.capacity - len(kept)
    taken = {i.ordinal for i in kept} | find_reserved(scale_set)
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
