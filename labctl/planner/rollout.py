"""When the instances get a changed model by themselves: upgrade modes Automatic and Rolling."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from labctl.model.instance import Instance, Wanted
from labctl.model.plan import Hold, Plan, RenewInstances, Rollout, ScaleSet, StartUpgrade
from labctl.model.upgrade_policy import UpgradeMode
from labctl.planner.gates import find_closed_window
from labctl.planner.situation import Situation, survey


def has_latest_model(scale_set: ScaleSet, instance: Instance) -> bool:
    """Azure's latestModelApplied: is the newest model in force in it, not only recorded?"""
    current, domain = instance.current, instance.domain
    model = scale_set.models[current.model_revision]
    return (
        current.model_revision == scale_set.model_revision
        and current.prepared
        and domain.generation == current.number
        and not domain.is_stale
        and all(map(current.is_through, model.extensions))
    )


def find_outdated(scale_set: ScaleSet, rollout: Rollout) -> tuple[Instance, ...]:
    """The instances that `rollout` concerns: with an older model, or not on its image.

    Those that are protected from scale set actions are left alone.
    """
    return tuple(
        s.instance
        for s in survey(scale_set)
        if s.instance.wanted is not Wanted.DELETED
        and not s.instance.protect_from_scale_set_actions
        and (
            s.current.model_revision < scale_set.model_revision
            or rollout.image_digest not in {None, s.current.image_digest}
        )
    )


def plan_rollout(scale_set: ScaleSet, situations: Sequence[Situation], now: datetime) -> Plan:
    """Begin what the last `apply` asked for. A rollout that was begun is asked for no more.

    So a cancelled or faulted one stays as it is until the next `apply`, also of the same spec.
    """
    rollout, running = scale_set.rollout, scale_set.upgrade
    if rollout is None or scale_set.is_deleting:
        return Plan()
    if running is not None and not running.code.is_final:
        reason = f"model {scale_set.model_revision} waits for the end of upgrade {running.id}"
        return Plan(holds=(Hold(subject=scale_set.name, reason=reason),))
    outdated = find_outdated(scale_set, rollout)
    closed = find_closed_window(scale_set, now) if outdated else None
    if closed is not None:
        reason = f"model {scale_set.model_revision} {closed.reason}"
        return Plan(holds=(replace(closed, reason=reason),))
    version = rollout.image_version or scale_set.image_version
    digest = rollout.image_digest or scale_set.image_digest
    revision = scale_set.model_revision
    mode = scale_set.spec.upgrade_policy.mode
    if mode is UpgradeMode.ROLLING and outdated:
        started = StartUpgrade(
            target_version=version,
            target_digest=digest,
            model_revision=revision,
            reason=f"model {revision}: {len(outdated)} of {len(situations)} instances have an "
            "older one; mode Rolling",
        )
        return Plan(decisions=(started,))
    names = tuple(i.name for i in outdated) if mode is UpgradeMode.AUTOMATIC else ()
    renewed = RenewInstances(
        instances=names,
        target_version=version,
        target_digest=digest,
        model_revision=revision,
        reason=f"model {revision} for {len(names)} of {len(situations)} instances; mode {mode}",
    )
    return Plan(decisions=(renewed,))
