"""Which instances to add and which to take away, so that there are as many as wanted."""

from collections import Counter, defaultdict, deque
from typing import assert_never

from labctl.model.instance import Instance, Wanted
from labctl.model.instance_policy import ScaleInRule
from labctl.model.placement import place
from labctl.model.plan import CreateInstance, Decision, Hold, Plan, RemoveInstance, ScaleSet
from labctl.model.spec import ScaleSetSpec
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


def find_change(scale_set: ScaleSet) -> str | None:
    """What keeps the number of instances from being what it will be; None: it is.

    Where more are protected from scale-in than the capacity is, they stay, and that is no change.
    """
    leaving = [i.name for i in scale_set.instances if i.wanted is Wanted.DELETED]
    if leaving:
        return f"{', '.join(sorted(leaving))} being deleted"
    decisions = plan_scaling(scale_set).decisions
    return decisions[0].reason if decisions else None


def _remove(instances: list[Instance], reason: str) -> tuple[Decision, ...]:
    return tuple(RemoveInstance(instance=i.name, reason=reason) for i in instances)


def _plan_scale_in(scale_set: ScaleSet, kept: list[Instance], reason: str) -> Plan:
    """Take away as many as are too many; never a protected one, even if too many remain."""
    excess = len(kept) - scale_set.spec.capacity
    rule = scale_set.spec.scale_in_policy.rules[0]
    leaving = _choose_leaving(scale_set.spec, kept, excess)
    if leaving:
        how = "" if rule is ScaleInRule.DEFAULT else f", {rule}"
        return Plan(
            decisions=tuple(
                RemoveInstance(instance=i.name, reason=f"{reason}{how}{crowd}")
                for i, crowd in leaving
            )
        )
    names = ", ".join(i.name for i in sorted(kept, key=lambda i: i.ordinal))
    hold = Hold(
        subject=scale_set.name,
        reason=f"{reason}, but all are protected from scale-in: {names}; raise the capacity, or: "
        "labctl instance unprotect INSTANCE",
    )
    return Plan(holds=(hold,))


def _choose_leaving(
    spec: ScaleSetSpec, kept: list[Instance], excess: int
) -> list[tuple[Instance, str]]:
    """One after the other, each from the fullest zone of those that are left; with that reason."""
    # Zone a: web_0, web_2, web_4; zone b: web_1, web_3. One too many: web_4. Where web_4 and web_2
    # are protected it is web_0, not web_3, so that both zones keep two. Two too many: then web_3.
    rule = spec.scale_in_policy.rules[0]
    places = {i.name: place(spec, i.ordinal) for i in kept}
    orders = {i.name: _scale_in_order(i, rule) for i in kept}
    zones = Counter(p.zone_number for p in places.values())
    domains = Counter((p.zone_number, p.fault_domain) for p in places.values())

    def rank(instance: Instance) -> tuple[bool, int, int, float, int]:
        served, age, ordinal = orders[instance.name]
        where = places[instance.name]
        # The other rules balance zones only, as Azure's do.
        domain = domains[where.zone_number, where.fault_domain] * (rule is ScaleInRule.DEFAULT)
        return served, -zones[where.zone_number], -domain, age, ordinal

    free = [i for i in kept if not i.protect_from_scale_in]
    leaving: list[tuple[Instance, str]] = []
    while free and len(leaving) < excess:
        chosen = min(free, key=rank)
        where = places[chosen.name]
        crowd = f", {zones[where.zone_number]} in zone {where.zone}" if where.zone else ""
        leaving.append((chosen, crowd))
        free.remove(chosen)
        zones[where.zone_number] -= 1
        domains[where.zone_number, where.fault_domain] -= 1
    return leaving


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
    """Create the lowest ordinals that are missing, where zones are even.

    Data disks are kept by ordinal, so scaling in and out again gives the same disks back. An
    ordinal whose instance is still being deleted is waited for, not passed over.
    """
    missing = scale_set.spec.capacity - len(kept)
    taken = {i.ordinal for i in kept} | find_reserved(scale_set)
    chosen = _choose_free(scale_set.spec, {i.ordinal for i in kept}, taken, missing)
    # While new instances come for old ones, both have addresses.
    room = scale_set.spec.network.room
    free = [n for n in chosen if room is None or n < room]
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
        )
        + _hold_for_addresses(scale_set, [n for n in chosen if n not in free]),
    )


def _hold_for_addresses(scale_set: ScaleSet, ordinals: list[int]) -> tuple[Hold, ...]:
    if not ordinals:
        return ()
    names = ", ".join(f"{scale_set.name}_{n}" for n in ordinals)
    reason = f"no address for {names} in the subnet until the upgrade has ended"
    return (Hold(subject=scale_set.name, reason=reason),)


def _choose_free(spec: ScaleSetSpec, present: set[int], taken: set[int], missing: int) -> list[int]:
    """One after the other the lowest free ordinal of the emptiest zone."""
    # Zones a and b, present are web_2 and web_4, both in a: then web_1, then web_3, then web_0.
    # So many ordinals are looked at that each zone alone has enough that are free.
    free: defaultdict[int, deque[int]] = defaultdict(deque)
    for ordinal in range((len(taken) + missing) * max(1, len(spec.zones))):
        if ordinal not in taken:
            free[place(spec, ordinal).zone_number].append(ordinal)
    counts = Counter(place(spec, ordinal).zone_number for ordinal in present)
    chosen: list[int] = []
    for _ in range(missing):
        zone = min((z for z in free if free[z]), key=lambda z: (counts[z], free[z][0]))
        chosen.append(free[zone].popleft())
        counts[zone] += 1
    return sorted(chosen)
