"""Rules of upgrades by new instances, worked out in another way than the planner's."""

from labctl.model.instance import HealthState, Instance, Power, Wanted
from labctl.model.plan import BeginBatch, CreateInstance, MoveMember, Plan, RemoveInstance, ScaleSet
from labctl.model.upgrade import MemberState

_DISK = 512 * 2**20


def check_surge(scale_set: ScaleSet, batch: BeginBatch) -> None:
    """All of a batch that may be replaced are, or the host has no room for all of them."""
    upgrade = scale_set.upgrade
    assert upgrade is not None
    if not upgrade.policy.max_surge:
        assert not batch.replacements, "replaced though nobody asked for it"
        return
    assert all(i.wanted is not Wanted.DELETED for i in scale_set.instances), "room is still taken"
    free = {i.name for i in scale_set.instances if i.name in batch.instances and not i.is_protected}
    capacity, model = scale_set.capacity, scale_set.models[upgrade.model_revision]
    off = [
        scale_set.models[i.current.model_revision].size.memory
        for i in scale_set.instances
        if i.wanted is Wanted.RUNNING and i.domain.power is Power.STOPPED
    ]
    needed = len(free) * model.size.memory + sum(off)
    overhead = (len(free) + len(off)) * capacity.overhead_per_instance
    has_room = (
        needed + overhead <= capacity.free_memory and len(free) * _DISK <= capacity.free_space
    )
    replaced = {each.instance for each in batch.replacements}
    assert replaced == (free if has_room else set())
    names = {f"web_{each.ordinal}" for each in batch.replacements}
    assert len(names) == len(replaced), "two with one ordinal"
    told = {name for m in upgrade.members for name in m.pair}
    assert not names & (told | {i.name for i in scale_set.instances}), "an ordinal is given twice"


def check_pairs(scale_set: ScaleSet, answer: Plan) -> None:
    """Who is replaced goes when its successor serves, and a successor only with a verdict."""
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.code.is_final or scale_set.is_deleting:
        return
    instances = {i.name: i for i in scale_set.instances}
    moving = [m for m in upgrade.members if m.replaced_by and m.state.is_moving]
    newcomers = {m.carrier: m for m in moving}
    forerunners = {m.instance: m for m in moving}
    moved = {d.instance: d.state for d in answer.decisions if isinstance(d, MoveMember)}
    present = {i.name for i in instances.values() if i.wanted is not Wanted.DELETED}
    excess = len(present - set(newcomers)) - scale_set.spec.capacity
    for decision in answer.decisions:
        if isinstance(decision, CreateInstance):
            assert excess < 0, "more than the capacity"
            told = {name for m in upgrade.members if m.replaced_by for name in m.pair}
            assert f"web_{decision.ordinal}" not in told, "a name of a pair is given again"
        if not isinstance(decision, RemoveInstance):
            continue
        name = decision.instance
        if name in newcomers:
            state = moved[newcomers[name].instance]
            assert state is not MemberState.SUCCEEDED, "a successor is deleted that serves"
            old = instances.get(newcomers[name].instance)
            assert state is MemberState.SKIPPED or (old and old.wanted is Wanted.RUNNING)
        elif name in forerunners and name in moved:
            assert moved[name] is MemberState.SUCCEEDED, "deleted without a successor"
            assert not instances[name].is_protected, "a protected one is deleted"
            assert is_serving(scale_set, instances[forerunners[name].carrier])
        else:
            assert excess > 0, "fewer than the capacity"


def is_serving(scale_set: ScaleSet, instance: Instance) -> bool:
    """Is it up, with every extension through, and healthy?"""
    extensions = scale_set.models[instance.current.model_revision].extensions
    through = {run.name for run in instance.current.extensions if run.exit_code == 0}
    return (
        instance.domain.power is Power.RUNNING
        and instance.is_settled
        and {e.name for e in extensions} <= through
        and instance.health.state is HealthState.HEALTHY
    )
