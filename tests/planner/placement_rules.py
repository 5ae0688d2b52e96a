"""Rules of zones and domains, worked out in another way than the planner's; for `rules.py`."""

from collections.abc import Sequence

from labctl.model.instance import Instance, Wanted
from labctl.model.instance_policy import ScaleInRule
from labctl.model.plan import RemoveInstance, ScaleSet
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import MemberState, Upgrade
from labctl.planner.situation import has_served
from labctl.planner.surge import find_newcomers


def check_lanes(scale_set: ScaleSet, upgrade: Upgrade, taken: set[str]) -> None:
    """One zone and one update domain at a time, in order, where they count."""
    spec = scale_set.spec
    crosses, is_managed = upgrade.policy.enable_cross_zone_upgrade, spec.cluster_manager is not None
    lanes = {
        name: (0 if crosses else zone, domain if is_managed else 0)
        for name, (zone, _, domain) in _deal(scale_set).items()
    }
    assert len({lanes[name][0] for name in taken}) == 1, "a batch spans zones"
    assert len({lanes[name][1] for name in taken}) == 1, "a batch spans update domains"
    phases = {m.instance: m.phase for m in upgrade.members}
    wanted = {i.name: i for i in scale_set.instances if i.wanted is Wanted.RUNNING}
    first = next(iter(taken))
    left = [
        m.instance
        for m in upgrade.members
        if m.state is MemberState.PENDING
        and m.instance in wanted
        and not m.skips_upgrade
        and not wanted[m.instance].protect_from_scale_set_actions
        and phases[m.instance] == phases[first]
        and lanes[m.instance] < lanes[first]
        and wanted[m.instance].current.image_digest != upgrade.target_digest
    ]
    assert not left, "a zone or update domain begins before the one before it is through"
    if spec.zones and not crosses:
        assert (len(taken) - 1) * spec.update_domain_count < len(wanted), "more than its share"


def check_balance(scale_set: ScaleSet, removals: Sequence[RemoveInstance]) -> None:
    """Nobody leaves a zone while a fuller one has somebody who may leave."""
    spec, leaving = scale_set.spec, {removal.instance for removal in removals}
    newcomers = find_newcomers(scale_set)
    kept = [
        i for i in scale_set.instances if i.wanted is not Wanted.DELETED and i.name not in newcomers
    ]
    if scale_set.is_deleting or not leaving:
        return
    dealt = _deal(scale_set)
    stay = [i for i in kept if i.name not in leaving]
    assert not any(i.protect_from_scale_in for i in kept if i.name in leaving)
    for gone in (i for i in kept if i.name in leaving and has_served(i)):
        for other in (i for i in stay if not i.protect_from_scale_in):
            here, there = dealt[gone.name], dealt[other.name]
            fullness = [_count(stay, dealt, place[:1]) for place in (here, there)]
            assert fullness[1] <= fullness[0] + 1, "a fuller zone was spared"
            if spec.scale_in_policy.rules[0] is ScaleInRule.DEFAULT and here[0] == there[0]:
                fullness = [_count(stay, dealt, place[:2]) for place in (here, there)]
                assert fullness[1] <= fullness[0] + 1, "a fuller fault domain was spared"


def _count(stay: list[Instance], dealt: dict[str, tuple[int, ...]], place: tuple[int, ...]) -> int:
    return sum(dealt[i.name][: len(place)] == place for i in stay)


def _deal(scale_set: ScaleSet) -> dict[str, tuple[int, int, int]]:
    """Zone, fault domain and update domain of everybody, dealt like cards from ordinal 0 on."""
    spec: ScaleSetSpec = scale_set.spec
    zones = max(len(spec.zones), 1)
    hands = [(0, 0)] * zones
    found: dict[int, tuple[int, int, int]] = {}
    zone = 0
    for ordinal in range(max((i.ordinal for i in scale_set.instances), default=0) + 1):
        fault, update = hands[zone]
        found[ordinal] = (zone, fault, update)
        fault, update = fault + 1, update + 1
        hands[zone] = (
            0 if fault == spec.fault_domain_count else fault,
            0 if update == spec.update_domain_count else update,
        )
        zone = zone + 1 if zone + 1 < zones else 0
    return {i.name: found[i.ordinal] for i in scale_set.instances}
