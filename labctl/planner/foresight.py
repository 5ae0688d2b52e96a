"""What the facts become when a decision is recorded, or when an action succeeds.

The controller writes the same into the store; `labctl upgrade plan` and the tests use this one.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from labctl.model.instance import (
    NOT_CHECKED,
    Generation,
    Health,
    HealthState,
    Instance,
    Wanted,
)
from labctl.model.plan import (
    Action,
    AskApproval,
    BeginBatch,
    BeginRepair,
    BeginRollback,
    CreateInstance,
    Decision,
    EndBatch,
    EndRepair,
    EndUpgrade,
    MoveMember,
    RemoveInstance,
    RenewInstances,
    ScaleSet,
    StartUpgrade,
    SuspendRepairs,
)
from labctl.model.repair import Repair
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    Upgrade,
    UpgradeCode,
    UpgradePurpose,
)
from labctl.planner.hook_facts import find_member, is_replacement, withdraw
from labctl.planner.members import make_members
from labctl.planner.outcome import apply, change_generation
from labctl.planner.renewal import choose_renewal, renew_in_place
from labctl.planner.repair_facts import begin_repair
from labctl.planner.surge import admit_pair, dissolve_pair, make_successor


def record(scale_set: ScaleSet, decision: Decision, now: datetime) -> ScaleSet:
    """The scale set after the commit of one decision."""
    match decision:
        case CreateInstance():
            return _create(scale_set, decision.ordinal, now)
        case RemoveInstance():
            return change_instance(
                scale_set, decision.instance, lambda i: replace(i, wanted=Wanted.DELETED)
            )
        case StartUpgrade():
            return _start_upgrade(scale_set, decision, now)
        case RenewInstances():
            return _renew(scale_set, decision, now)
        case AskApproval():
            return _change_upgrade(scale_set, lambda u: replace(u, approval_asked_at=now))
        case BeginBatch():
            return _begin_batch(scale_set, decision, now)
        case MoveMember():
            return _move_member(scale_set, decision, now)
        case BeginRollback():
            return _begin_rollback(scale_set, decision)
        case EndBatch():
            return _change_upgrade(scale_set, lambda u: replace(u, batch_ended_at=now))
        case EndUpgrade():
            return _end_upgrade(scale_set, decision, now)
        case BeginRepair():
            return _begin_repair(scale_set, decision, now)
        case EndRepair():
            return _end_repair(scale_set, decision, now)
        case SuspendRepairs():
            service = replace(
                scale_set.repair_service, suspended_at=now, suspended_reason=decision.reason
            )
            return replace(scale_set, repair_service=service)
        case _:
            assert_never(decision)


def succeed(scale_set: ScaleSet, action: Action, now: datetime) -> ScaleSet:
    """The scale set after one action went well, its instance healthy as soon as it can be."""
    name = action.instance
    instance = apply(next(i for i in scale_set.instances if i.name == name), action, now)
    if instance is None:
        kept = tuple(i for i in scale_set.instances if i.name != name)
        return replace(scale_set, instances=kept)
    changed = change_instance(scale_set, name, lambda _: instance)
    extensions = changed.models[instance.current.model_revision].extensions
    if not (instance.is_settled and all(map(instance.current.is_through, extensions))):
        return changed
    healthy = Health(state=HealthState.HEALTHY, since=now)
    changed = change_instance(changed, name, lambda i: replace(i, health=healthy))
    return settle_member(changed, name, now)


def settle_member(scale_set: ScaleSet, instance: str, now: datetime) -> ScaleSet:
    """Start the clock of a moving member that is through its extensions, once."""
    return _change_member(
        scale_set,
        instance,
        lambda m: replace(m, settled_at=now) if m.state.is_moving and not m.settled_at else m,
        carried=True,
    )


def change_instance(
    scale_set: ScaleSet, name: str, change: Callable[[Instance], Instance]
) -> ScaleSet:
    """Change the one instance of this name."""
    instances = tuple(change(i) if i.name == name else i for i in scale_set.instances)
    return replace(scale_set, instances=instances)


def _change_upgrade(scale_set: ScaleSet, change: Callable[[Upgrade], Upgrade]) -> ScaleSet:
    upgrade = scale_set.upgrade
    return scale_set if upgrade is None else replace(scale_set, upgrade=change(upgrade))


def _change_member(
    scale_set: ScaleSet, name: str, change: Callable[[Member], Member], *, carried: bool = False
) -> ScaleSet:
    """Change the member of that instance, or the one that it carries the upgrade of."""

    def change_one(member: Member) -> Member:
        is_it = name == (member.carrier if carried else member.instance)
        return change(member) if is_it else member

    return _change_upgrade(
        scale_set, lambda u: replace(u, members=tuple(change_one(m) for m in u.members))
    )


def _create(scale_set: ScaleSet, ordinal: int, now: datetime) -> ScaleSet:
    name = f"{scale_set.name}_{ordinal}"
    first = Generation(
        number=1,
        image_version=scale_set.image_version,
        image_digest=scale_set.image_digest,
        model_revision=scale_set.model_revision,
        prepared=False,
    )
    instance = Instance(
        name=name,
        ordinal=ordinal,
        wanted=Wanted.RUNNING,
        generation=1,
        generations=(first,),
        out_of_service_since=now if is_replacement(scale_set, ordinal) else None,
        created_at=now,
    )
    # It boots the proven version and takes its turn in the running upgrade like the others.
    member = Member(instance=name, ordinal=ordinal, from_version=scale_set.image_version)
    return _change_upgrade(
        replace(scale_set, instances=(*scale_set.instances, instance)),
        lambda u: replace(u, members=(*(m for m in u.members if m.instance != name), member)),
    )


def _begin_batch(scale_set: ScaleSet, decision: BeginBatch, now: datetime) -> ScaleSet:
    changed = _change_upgrade(
        scale_set,
        lambda u: replace(u, batches=decision.batch, batch_ended_at=None, approval_asked_at=None),
    )
    ordinals = {each.instance: each.ordinal for each in decision.replacements}
    for name in decision.instances:
        if name in ordinals:
            changed = _admit_pair(changed, name, ordinals[name], decision.batch, now)
        else:
            changed = _admit(changed, name, decision.batch, now)
    return changed


def _admit_pair(
    scale_set: ScaleSet, name: str, ordinal: int, batch: int, now: datetime
) -> ScaleSet:
    old = next(i for i in scale_set.instances if i.name == name)
    new = make_successor(scale_set, ordinal, now)
    changed = replace(scale_set, instances=(*scale_set.instances, new))
    return _change_member(changed, name, lambda m: admit_pair(m, old, new, batch=batch, now=now))


def _admit(scale_set: ScaleSet, name: str, batch: int, now: datetime) -> ScaleSet:
    upgrade = scale_set.upgrade
    assert upgrade is not None  # noqa: S101 - a batch belongs to an upgrade
    before = next(i for i in scale_set.instances if i.name == name)
    changed = change_instance(
        scale_set,
        name,
        lambda i: renew(
            scale_set,
            i,
            version=upgrade.target_version,
            digest=upgrade.target_digest,
            model_revision=upgrade.model_revision,
            keeps_way_back=upgrade.keeps_way_back,
            now=now,
        ),
    )
    after = next(i for i in changed.instances if i.name == name)
    return _change_member(
        changed,
        name,
        lambda m: replace(
            m,
            state=MemberState.IN_PROGRESS,
            batch=batch,
            from_generation=before.generation,
            to_generation=after.generation,
            from_version=before.current.image_version,
            from_model=before.current.model_revision,
            admitted_at=now,
        ),
    )


def renew(
    scale_set: ScaleSet,
    instance: Instance,
    *,
    version: str,
    digest: str,
    model_revision: int,
    keeps_way_back: bool,
    now: datetime,
) -> Instance:
    """The instance after an image and a model were recorded for it."""
    renewal = choose_renewal(
        instance,
        scale_set.models,
        image_digest=digest,
        model_revision=model_revision,
        keeps_way_back=keeps_way_back,
    )
    instance = replace(instance, hook_failure=None)  # of another errand
    if renewal.keeps_disk:
        return renew_in_place(instance, renewal, model_revision=model_revision, now=now)
    fresh = Generation(
        number=max(g.number for g in instance.generations) + 1,
        image_version=version,
        image_digest=digest,
        model_revision=model_revision,
        prepared=False,
    )
    return replace(instance, generation=fresh.number, generations=(*instance.generations, fresh))


def _start_upgrade(scale_set: ScaleSet, decision: StartUpgrade, now: datetime) -> ScaleSet:
    policy = scale_set.spec.upgrade_policy
    upgrade = Upgrade(
        id=scale_set.upgrade.id + 1 if scale_set.upgrade else 0,
        scale_set=scale_set.name,
        started_by=StartedBy.USER,
        target_version=decision.target_version,
        target_digest=decision.target_digest,
        model_revision=decision.model_revision,
        purpose=UpgradePurpose.MODEL,
        policy=policy.rolling_upgrade_policy,
        control=policy.control,
        health_timeout=policy.health_timeout,
        restores=False,
        started_at=now,
        members=make_members(scale_set),
    )
    return replace(scale_set, upgrade=upgrade, rollout=None)


def _renew(scale_set: ScaleSet, decision: RenewInstances, now: datetime) -> ScaleSet:
    changed = scale_set
    for name in decision.instances:
        changed = change_instance(
            changed,
            name,
            lambda i: renew(
                scale_set,
                i,
                version=decision.target_version,
                digest=decision.target_digest,
                model_revision=decision.model_revision,
                keeps_way_back=False,
                now=now,
            ),
        )
    changed = replace(changed, rollout=None)
    if not decision.instances or not is_on_image(changed.instances, decision.target_digest):
        return changed
    return replace(
        changed, image_version=decision.target_version, image_digest=decision.target_digest
    )


def is_on_image(instances: Iterable[Instance], digest: str) -> bool:
    """Is this the image of all that stay? Then new ones boot it, too."""
    return all(
        i.current.image_digest == digest for i in instances if i.wanted is not Wanted.DELETED
    )


def _move_member(scale_set: ScaleSet, decision: MoveMember, now: datetime) -> ScaleSet:
    def change(member: Member) -> Member:
        if decision.state is MemberState.PENDING:
            return dissolve_pair(member, decision.reason)
        moved = replace(member, state=decision.state, message=decision.reason)
        if decision.state.is_moving:
            return replace(moved, settled_at=None)
        is_healthy = decision.state in {MemberState.SUCCEEDED, MemberState.ROLLED_BACK}
        return replace(moved, ended_at=now, healthy_at=now if is_healthy else None)

    changed = _change_member(scale_set, decision.instance, change)
    if decision.is_untouched:
        member = find_member(scale_set, decision.instance)
        return change_instance(changed, decision.instance, lambda i: withdraw(i, member, now))
    if decision.state is not MemberState.ROLLING_BACK:
        return changed
    return change_instance(changed, decision.instance, lambda i: _restore(i, changed.upgrade))


def _begin_rollback(scale_set: ScaleSet, decision: BeginRollback) -> ScaleSet:
    changed = _change_upgrade(
        scale_set, lambda u: replace(u, code=UpgradeCode.ROLLING_BACK, error=decision.error)
    )
    for name in decision.instances:
        changed = _change_member(
            changed,
            name,
            lambda m: replace(m, state=MemberState.ROLLING_BACK, settled_at=None, ended_at=None),
        )
        changed = change_instance(changed, name, lambda i: _restore(i, scale_set.upgrade))
    return changed


def _restore(instance: Instance, upgrade: Upgrade | None) -> Instance:
    members = upgrade.members if upgrade else ()
    previous = next(m.from_generation for m in members if m.instance == instance.name)
    assert previous is not None  # noqa: S101 - set when the batch began
    # It was ready before the swap and must be so again after it; old marks do not count.
    restored = change_generation(
        instance, previous, lambda g: replace(g, started_at=None, ready_at=None, failure=None)
    )
    return replace(restored, generation=previous, health=NOT_CHECKED)


def _end_upgrade(scale_set: ScaleSet, decision: EndUpgrade, now: datetime) -> ScaleSet:
    ended = _change_upgrade(
        scale_set,
        lambda u: replace(
            u,
            code=decision.code,
            ended_at=now,
            error=decision.error,
            end_reason=decision.reason,
        ),
    )
    upgrade = ended.upgrade
    if upgrade is None or decision.code is not UpgradeCode.COMPLETED:
        return ended
    return replace(ended, image_version=upgrade.target_version, image_digest=upgrade.target_digest)


def _begin_repair(scale_set: ScaleSet, decision: BeginRepair, now: datetime) -> ScaleSet:
    instance = next(i for i in scale_set.instances if i.name == decision.instance)
    repair = Repair(
        id=max((r.id for r in scale_set.repairs), default=0) + 1,
        instance=instance.name,
        ordinal=instance.ordinal,
        action=decision.action,
        began_at=now,
        reason=decision.reason,
    )
    changed = replace(scale_set, repairs=(*scale_set.repairs, repair))
    return change_instance(changed, instance.name, lambda i: begin_repair(i, decision.action, now))


def _end_repair(scale_set: ScaleSet, decision: EndRepair, now: datetime) -> ScaleSet:
    return replace(
        scale_set,
        repairs=tuple(
            replace(r, ended_at=now, outcome=decision.outcome, message=decision.reason)
            if r.id == decision.repair
            else r
            for r in scale_set.repairs
        ),
    )
