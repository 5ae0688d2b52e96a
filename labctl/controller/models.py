"""A changed model on its way to the instances: what it needs, who gets it, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from labctl.controller.record import renew_instances
from labctl.errors import NotFoundError, RefusedError
from labctl.model.event import EventKind
from labctl.model.image import ImageVersion
from labctl.model.instance import Instance, Wanted
from labctl.model.plan import HostCapacity, RenewInstances, Rollout, ScaleSet
from labctl.model.upgrade import UpgradePurpose
from labctl.model.upgrade_policy import UpgradeMode
from labctl.planner import find_outdated
from labctl.planner.impact import Need
from labctl.planner.renewal import choose_renewal
from labctl.store.events import add_event
from labctl.store.gallery import resolve
from labctl.store.scale_sets import get_scale_set, load_view, save_rollout
from labctl.store.upgrades import change_upgrade

_NO_CAPACITY = HostCapacity(boots_at_once=0, free_memory=0, overhead_per_instance=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceNeed:
    """What one instance goes through until it has the newest model."""

    instance: str
    model_revision: int  # that it has now
    need: Need


def find_model_image(
    connection: Connection, view: ScaleSet, *, now: datetime
) -> ImageVersion | None:
    """The image that the model asks for, where its reference has changed; None: keep the image.

    The reference counts as changed against the model that the present image stands for.
    """
    # 1.0.0 in model 1; `upgrade start --version 1.1.0` completes; custom data changes: 1.1.0 stays.
    known = view.models.get(get_scale_set(connection, view.name).image_revision)
    reference = view.spec.image
    if known is not None and known.image == reference:
        return None
    region = view.spec.region
    return resolve(connection, reference.definition, reference.version, region=region, now=now)


def find_rollout(connection: Connection, view: ScaleSet, *, now: datetime) -> Rollout:
    """The wish that every instance gets the newest model."""
    image = find_model_image(connection, view, now=now)
    return Rollout(
        asked_at=now,
        image_version=None if image is None else str(image.version),
        image_digest=None if image is None else image.digest,
    )


def find_instance_needs(
    view: ScaleSet, instances: Sequence[Instance], *, digest: str
) -> tuple[InstanceNeed, ...]:
    """What each of `instances` goes through to the newest model, if nobody asks for a way back."""
    return tuple(
        InstanceNeed(
            instance=instance.name,
            model_revision=instance.current.model_revision,
            need=choose_renewal(
                instance,
                view.models,
                image_digest=digest,
                model_revision=view.model_revision,
                keeps_way_back=False,
            ).need,
        )
        for instance in instances
    )


def ask_for_rollout(
    connection: Connection, name: str, *, now: datetime
) -> tuple[InstanceNeed, ...]:
    """Record after an `apply` what its upgrade mode makes of instances that are behind.

    Rolling: also an `apply` that changes nothing begins again what was cancelled or has faulted.
    """
    view = load_view(connection, name, capacity=_NO_CAPACITY)
    rollout = find_rollout(connection, view, now=now)
    digest = rollout.image_digest or view.image_digest
    needs = find_instance_needs(view, find_outdated(view, rollout), digest=digest)
    running = view.upgrade
    is_rolling = running is not None and running.purpose is UpgradePurpose.MODEL
    is_by_itself = view.spec.upgrade_policy.mode is not UpgradeMode.MANUAL
    if not needs or not is_by_itself:
        save_rollout(connection, name, None)
        return needs
    if running is not None and is_rolling:
        if running.model_revision == view.model_revision and running.cancel_asked_at is None:
            return needs  # it is under way
        # The newer model overtakes it; the batch that is under way still comes to its end.
        change_upgrade(connection, running.id, cancel_asked_at=now)
    save_rollout(connection, name, rollout)
    return needs


def update_instances(
    connection: Connection, name: str, instances: Sequence[str], *, now: datetime
) -> tuple[str, ...]:
    """Give these instances, or without names all, the newest model now; returns who needed it.

    No batches and no health gate. Raises NotFoundError and RefusedError before any change.
    """
    view = load_view(connection, name, capacity=_NO_CAPACITY)
    if view.is_deleting:
        raise RefusedError(f"scale set {name!r} is being deleted")
    present = {i.name for i in view.instances if i.wanted is not Wanted.DELETED}
    unknown = [each for each in instances if each not in present]
    if unknown:
        raise NotFoundError(
            f"scale set {name!r} has no instance {unknown[0]!r}",
            hint=f"run: labctl instance list {name}",
        )
    guarded = [i.name for i in view.instances if i.protect_from_scale_set_actions]
    named = next((each for each in instances if each in guarded), None)
    if named is not None:
        raise RefusedError(
            f"instance {named!r} is protected from scale set actions",
            hint=f"run: labctl instance unprotect {named}",
        )
    if view.upgrade is not None:
        raise RefusedError(
            f"upgrade {view.upgrade.id} of {name!r} is running",
            detail="it decides which instance is changed when",
            hint=f"run: labctl upgrade watch {name}, or labctl upgrade cancel {name}",
        )
    rollout = find_rollout(connection, view, now=now)
    chosen = tuple(
        i.name for i in find_outdated(view, rollout) if not instances or i.name in instances
    )
    if not chosen:
        return ()
    decision = RenewInstances(
        instances=chosen,
        target_version=rollout.image_version or view.image_version,
        target_digest=rollout.image_digest or view.image_digest,
        model_revision=view.model_revision,
        reason=f"model {view.model_revision}: its user asked for it",
    )
    renew_instances(connection, view, decision, now=now)
    add_event(
        connection,
        at=now,
        scale_set=name,
        kind=EventKind.REQUEST,
        message=f"model {view.model_revision} asked for on {', '.join(chosen)}",
    )
    return chosen
