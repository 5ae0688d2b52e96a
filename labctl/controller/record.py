"""Writes the planner's decisions into the store: one commit, before anything acts on them."""

from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from sqlalchemy import Connection

from labctl.controller.record_renewal import save_renewed, withdraw_renewal
from labctl.controller.record_repair import record_repair
from labctl.controller.record_rollback import begin_rollback, restore
from labctl.controller.record_surge import NOT_ADMITTED, insert_successor
from labctl.model.event import EventKind
from labctl.model.instance import Identity, Instance, Wanted
from labctl.model.notification import Topic
from labctl.model.plan import (
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
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    Upgrade,
    UpgradeCode,
    UpgradePurpose,
)
from labctl.planner import make_members
from labctl.planner.foresight import is_on_image, renew
from labctl.planner.hook_facts import is_replacement
from labctl.store.events import add_event
from labctl.store.instances import (
    add_generation,
    change_instance,
    insert_instance,
)
from labctl.store.scale_sets import load_view, move_image, save_rollout
from labctl.store.upgrades import (
    change_member,
    change_upgrade,
    find_running_upgrade,
    insert_member,
    insert_upgrade,
)

NewIdentity = Callable[[Connection, str, int], Identity]  # (transaction, instance name, ordinal)


def record(
    connection: Connection,
    scale_set: ScaleSet,
    decisions: tuple[Decision, ...],
    *,
    now: datetime,
    new_identity: NewIdentity,
) -> None:
    """Apply `decisions`, in order, in the running transaction; each leaves an event."""
    for decision in decisions:
        match decision:
            case CreateInstance():
                _create(connection, scale_set, decision, now=now, new_identity=new_identity)
            case RemoveInstance():
                change_instance(connection, decision.instance, wanted=Wanted.DELETED.value)
                _note(connection, scale_set, decision.reason, now=now, instance=decision.instance)
            case StartUpgrade():
                _start_upgrade(connection, scale_set, decision, now=now)
            case RenewInstances():
                save_rollout(connection, scale_set.name, None)
                renew_instances(connection, scale_set, decision, now=now)
            case AskApproval():
                change_upgrade(connection, decision.upgrade, approval_asked_at=now)
                _note(
                    connection,
                    scale_set,
                    decision.reason,
                    now=now,
                    upgrade=decision.upgrade,
                    topic=Topic.APPROVAL_ASKED,
                )
            case BeginBatch():
                _begin_batch(connection, scale_set, decision, now=now, new_identity=new_identity)
            case MoveMember():
                _move_member(connection, scale_set, decision, now=now)
            case BeginRollback():
                begin_rollback(connection, scale_set, decision, now=now)
            case EndBatch():
                change_upgrade(connection, decision.upgrade, batch_ended_at=now)
                _note(
                    connection,
                    scale_set,
                    f"batch {decision.batch}: {decision.reason}",
                    now=now,
                    upgrade=decision.upgrade,
                    topic=Topic.BATCH_ENDED,
                )
            case EndUpgrade():
                _end_upgrade(connection, scale_set, decision, now=now)
            case BeginRepair() | EndRepair() | SuspendRepairs():
                record_repair(connection, scale_set, decision, now=now)
            case _:
                assert_never(decision)


def is_overtaken(connection: Connection, scale_set: ScaleSet) -> bool:
    """Has a command, or the daemon's hook, changed what is wanted since the look at it?"""
    fresh = load_view(connection, scale_set.name, capacity=scale_set.capacity)
    return _wishes(fresh) != _wishes(scale_set)


def _wishes(scale_set: ScaleSet) -> tuple[object, ...]:
    upgrade = scale_set.upgrade
    return (
        scale_set.model_revision,
        scale_set.spec,
        scale_set.is_deleting,
        scale_set.rollout,
        scale_set.repair_service,
        None if upgrade is None else (upgrade.id, upgrade.cancel_asked_at),
        [
            (
                instance.name,
                instance.created_at,
                instance.wanted,
                instance.is_protected,
                instance.restart_asked_at,
                [(g.number, g.model_revision) for g in instance.generations],
            )
            for instance in scale_set.instances
        ],
    )


def _note(
    connection: Connection,
    scale_set: ScaleSet,
    message: str,
    *,
    now: datetime,
    instance: str | None = None,
    upgrade: int | None = None,
    kind: EventKind = EventKind.DECISION,
    topic: Topic | None = None,
) -> None:
    add_event(
        connection,
        at=now,
        scale_set=scale_set.name,
        kind=kind,
        message=message,
        instance=instance,
        upgrade=upgrade,
        topic=topic,
    )


def _create(
    connection: Connection,
    scale_set: ScaleSet,
    decision: CreateInstance,
    *,
    now: datetime,
    new_identity: NewIdentity,
) -> None:
    name = f"{scale_set.name}_{decision.ordinal}"
    insert_instance(
        connection,
        scale_set=scale_set.name,
        ordinal=decision.ordinal,
        name=name,
        identity=new_identity(connection, name, decision.ordinal),
        now=now,
    )
    if is_replacement(scale_set, decision.ordinal):
        change_instance(connection, name, out_of_service_since=now)
    add_generation(
        connection,
        name,
        number=1,
        image_version=scale_set.image_version,
        image_digest=scale_set.image_digest,
        model_revision=scale_set.model_revision,
        now=now,
    )
    running = scale_set.upgrade
    if running is not None:
        # It boots the version that is proven, and takes its turn in the upgrade like the others.
        insert_member(
            connection,
            running.id,
            Member(instance=name, ordinal=decision.ordinal, from_version=scale_set.image_version),
        )
    _note(connection, scale_set, decision.reason, now=now, instance=name)


def _begin_batch(
    connection: Connection,
    scale_set: ScaleSet,
    decision: BeginBatch,
    *,
    now: datetime,
    new_identity: NewIdentity,
) -> None:
    upgrade = _running(scale_set, decision.upgrade)
    change_upgrade(
        connection,
        upgrade.id,
        batches=decision.batch,
        batch_ended_at=None,
        approval_asked_at=None,
    )
    _note(
        connection,
        scale_set,
        decision.reason,
        now=now,
        upgrade=upgrade.id,
        topic=Topic.BATCH_STARTED,
    )
    ordinals = {each.instance: each.ordinal for each in decision.replacements}
    for instance in scale_set.instances:
        if instance.name in ordinals:
            insert_successor(
                connection,
                scale_set,
                upgrade,
                instance,
                ordinal=ordinals[instance.name],
                batch=decision.batch,
                now=now,
                new_identity=new_identity,
            )
            continue
        if instance.name not in decision.instances:
            continue
        renewed = renew(
            scale_set,
            instance,
            version=upgrade.target_version,
            digest=upgrade.target_digest,
            model_revision=upgrade.model_revision,
            keeps_way_back=upgrade.keeps_way_back,
            now=now,
        )
        save_renewed(connection, instance, renewed, now=now)
        change_member(
            connection,
            upgrade.id,
            instance.name,
            state=MemberState.IN_PROGRESS.value,
            batch=decision.batch,
            from_generation=instance.generation,
            to_generation=renewed.generation,
            from_version=instance.current.image_version,
            from_model=instance.current.model_revision,
            admitted_at=now,
        )


def renew_instances(
    connection: Connection, scale_set: ScaleSet, decision: RenewInstances, *, now: datetime
) -> None:
    """Give instances the newest model, without batches."""
    changed: list[Instance] = []
    for instance in scale_set.instances:
        if instance.name not in decision.instances:
            changed.append(instance)
            continue
        renewed = renew(
            scale_set,
            instance,
            version=decision.target_version,
            digest=decision.target_digest,
            model_revision=decision.model_revision,
            keeps_way_back=False,
            now=now,
        )
        save_renewed(connection, instance, renewed, now=now)
        _note(connection, scale_set, decision.reason, now=now, instance=instance.name)
        changed.append(renewed)
    if decision.instances and is_on_image(changed, decision.target_digest):
        move_image(
            connection,
            scale_set.name,
            version=decision.target_version,
            digest=decision.target_digest,
            revision=decision.model_revision,
        )


def _start_upgrade(
    connection: Connection, scale_set: ScaleSet, decision: StartUpgrade, *, now: datetime
) -> None:
    if find_running_upgrade(connection, scale_set.name) is not None:
        return  # a command started one a moment ago; the rollout waits for its end
    policy = scale_set.spec.upgrade_policy
    upgrade_id = insert_upgrade(
        connection,
        scale_set=scale_set.name,
        started_by=StartedBy.USER,  # it was the user who changed the model
        target_version=decision.target_version,
        target_digest=decision.target_digest,
        model_revision=decision.model_revision,
        purpose=UpgradePurpose.MODEL,
        policy=policy.rolling_upgrade_policy,
        control=policy.control,
        health_timeout=policy.health_timeout,
        restores=False,
        members=make_members(scale_set),
        now=now,
    )
    save_rollout(connection, scale_set.name, None)
    _note(
        connection,
        scale_set,
        decision.reason,
        now=now,
        upgrade=upgrade_id,
        topic=Topic.UPGRADE_STARTED,
    )


def _move_member(
    connection: Connection, scale_set: ScaleSet, decision: MoveMember, *, now: datetime
) -> None:
    upgrade = _running(scale_set, decision.upgrade)
    values: dict[str, object] = {"state": decision.state.value, "message": decision.reason}
    if decision.state is MemberState.PENDING:
        values |= NOT_ADMITTED
    elif not decision.state.is_moving:
        values["ended_at"] = now
    if decision.state in {MemberState.SUCCEEDED, MemberState.ROLLED_BACK}:
        values["healthy_at"] = now
    if decision.state is MemberState.ROLLING_BACK:
        values["settled_at"] = None
        restore(connection, upgrade, decision.instance)
    if decision.is_untouched:
        withdraw_renewal(connection, scale_set, decision.instance, now=now)
    change_member(connection, upgrade.id, decision.instance, **values)
    _note(
        connection,
        scale_set,
        decision.reason,
        now=now,
        instance=decision.instance,
        upgrade=upgrade.id,
        kind=EventKind.FAILURE if decision.state.has_failed else EventKind.DECISION,
    )


def _end_upgrade(
    connection: Connection, scale_set: ScaleSet, decision: EndUpgrade, *, now: datetime
) -> None:
    upgrade = _running(scale_set, decision.upgrade)
    error = decision.error
    change_upgrade(
        connection,
        upgrade.id,
        code=decision.code.value,
        ended_at=now,
        end_reason=decision.reason,
        error_code=None if error is None else error.code.value,
        error_message=None if error is None else error.message,
    )
    if decision.code is UpgradeCode.COMPLETED:
        move_image(
            connection,
            scale_set.name,
            version=upgrade.target_version,
            digest=upgrade.target_digest,
            revision=upgrade.model_revision,
        )
    _note(
        connection,
        scale_set,
        decision.reason,
        now=now,
        upgrade=upgrade.id,
        kind=EventKind.FAILURE if error is not None else EventKind.DECISION,
        topic=Topic.UPGRADE_ENDED if error is None else Topic.UPGRADE_FAULTED,
    )


def _running(scale_set: ScaleSet, upgrade_id: int) -> Upgrade:
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.id != upgrade_id:
        raise RuntimeError(f"decision for upgrade {upgrade_id}, which is not running")
    return upgrade
