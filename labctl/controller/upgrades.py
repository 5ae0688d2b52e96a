"""Starting and cancelling upgrades: checks, then desired state."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from labctl.controller.models import InstanceNeed, find_instance_needs
from labctl.errors import RefusedError
from labctl.model.event import EventKind
from labctl.model.image import ImageVersion
from labctl.model.instance import Wanted
from labctl.model.notification import Topic
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import StartedBy, UpgradePurpose
from labctl.planner import (
    Impact,
    admit_upgrade,
    find_change,
    find_impacts,
    find_purpose,
    make_members,
)
from labctl.store.events import add_event
from labctl.store.gallery import resolve
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import change_upgrade, find_running_upgrade, insert_upgrade


class NothingToUpgradeError(RefusedError):
    """Every instance is on the target already; that is no failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an upgrade goes."""

    image: ImageVersion
    model_revision: int


def find_target(
    connection: Connection, scale_set: ScaleSet, version: str | None, *, now: datetime
) -> Target:
    """The version that the newest model names, or another version of its definition.

    Raises NotFoundError when the gallery has no such version.
    """
    reference = scale_set.spec.image
    image = resolve(
        connection,
        reference.definition,
        version or reference.version,
        region=scale_set.spec.region,
        now=now,
    )
    return Target(image=image, model_revision=scale_set.model_revision)


def find_changes(
    scale_set: ScaleSet, digest: str, model_revision: int
) -> tuple[tuple[Impact, ...], tuple[InstanceNeed, ...]]:
    """What the upgrade changes in the model, field by field, and what each instance needs."""
    new = scale_set.models[model_revision]
    running = [i for i in scale_set.instances if i.wanted is Wanted.RUNNING]
    oldest = min((i.current.model_revision for i in running), default=model_revision)
    behind = [
        i
        for i in running
        if i.current.image_digest != digest or i.current.model_revision < model_revision
    ]
    needs = find_instance_needs(scale_set, behind, digest=digest)
    return find_impacts(scale_set.models[oldest], new), needs


def start_upgrade(
    connection: Connection,
    scale_set: ScaleSet,
    target: Target,
    *,
    restores: bool,
    started_by: StartedBy,
    now: datetime,
    ignores_windows: bool = False,
) -> int:
    """Record a new upgrade of every instance; returns its id. `scale_set` is freshly observed.

    Raises NothingToUpgradeError or RefusedError, with the planner's reason.
    """
    wish = scale_set.spec.upgrade_policy
    is_automatic = started_by is StartedBy.PLATFORM
    policy = wish.automatic_limits if is_automatic else wish.rolling_upgrade_policy
    refusal = admit_upgrade(
        scale_set,
        target_version=str(target.image.version),
        target_digest=target.image.digest,
        policy=policy,
        now=now,
    )
    if refusal is not None and refusal.is_done:
        raise NothingToUpgradeError(refusal.message, hint=refusal.hint)
    if refusal is not None:
        raise RefusedError(
            f"upgrade of {scale_set.name!r} to {target.image.name} refused",
            detail=refusal.message
            if refusal.code is None
            else f"{refusal.code}: {refusal.message}",
            hint=refusal.hint,
        )
    fresh = load_view(connection, scale_set.name, capacity=scale_set.capacity)
    change = find_change(fresh)
    if (
        fresh.is_deleting
        or fresh.model_revision != scale_set.model_revision
        or [(i.name, i.created_at) for i in fresh.instances]
        != [(i.name, i.created_at) for i in scale_set.instances]
        or change is not None
    ):
        raise RefusedError(
            f"scale set {scale_set.name!r} is being changed at the moment",
            detail=change or "it is not as it was a moment ago",
            hint=f"run it again when that is done; to see: labctl show {scale_set.name}",
        )
    running = find_running_upgrade(connection, scale_set.name)
    if running is not None:  # another command was a moment faster
        raise RefusedError(
            f"upgrade {running.id} of {scale_set.name!r} is running already",
            hint=f"run: labctl upgrade watch {scale_set.name}",
        )
    purpose = find_purpose(scale_set, target.image.digest)
    upgrade_id = insert_upgrade(
        connection,
        purpose=purpose,
        scale_set=scale_set.name,
        started_by=started_by,
        target_version=str(target.image.version),
        target_digest=target.image.digest,
        model_revision=target.model_revision,
        policy=policy,
        control=wish.control,
        health_timeout=wish.health_timeout,
        restores=restores,
        ignores_windows=ignores_windows,
        members=make_members(scale_set),
        now=now,
    )
    model = f" with model {target.model_revision}" if purpose is UpgradePurpose.MODEL else ""
    add_event(
        connection,
        at=now,
        scale_set=scale_set.name,
        upgrade=upgrade_id,
        kind=EventKind.REQUEST,
        message=f"upgrade {upgrade_id} to {target.image.name}{model} started by "
        f"{started_by.value}, "
        f"{'restoring' if restores else 'not restoring'} disks of instances that do not recover"
        + (", outside of maintenance windows, too" if ignores_windows else ""),
        topic=Topic.UPGRADE_STARTED,
    )
    return upgrade_id


def find_same_upgrade(
    connection: Connection, scale_set: str, target: Target, *, restores: bool
) -> int | None:
    """The running upgrade that a new one would be like, so that it can be gone on with."""
    running = find_running_upgrade(connection, scale_set)
    if (
        running is None
        or running.target_digest != target.image.digest
        or running.model_revision != target.model_revision
        or running.restores != restores
    ):
        return None
    return running.id


def cancel_upgrade(connection: Connection, scale_set: str, *, now: datetime) -> int:
    """Ask the running upgrade to stop at the end of its batch; returns its id."""
    running = find_running_upgrade(connection, scale_set)
    if running is None:
        raise RefusedError(
            f"no upgrade of {scale_set!r} is running",
            hint=f"run: labctl upgrade history {scale_set}",
        )
    if running.cancel_asked_at is None:
        change_upgrade(connection, running.id, cancel_asked_at=now)
        add_event(
            connection,
            at=now,
            scale_set=scale_set,
            upgrade=running.id,
            kind=EventKind.REQUEST,
            message=f"cancellation of upgrade {running.id} asked for; the current batch finishes",
        )
    return running.id
