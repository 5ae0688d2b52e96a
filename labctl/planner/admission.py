"""May an upgrade start? If not: why, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from labctl.model.instance import Power
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import UpgradeErrorCode, UpgradePurpose
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.planner.health import is_on_its_way, judge
from labctl.planner.limits import find_unhealthy_set
from labctl.planner.situation import Situation, survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an upgrade does not start."""

    message: str
    hint: str
    code: UpgradeErrorCode | None = None  # where the page has one
    is_done: bool = False  # what was asked for is so already


def _takes_part(situation: Situation) -> bool:
    return situation.is_counted and not situation.instance.protect_from_scale_set_actions


def find_purpose(scale_set: ScaleSet, target_digest: str) -> UpgradePurpose:
    """The image, where an instance has another one; otherwise the model."""
    # web_0 has the target's image and an old model, web_1 an old image: the upgrade is for web_1.
    digests = {s.current.image_digest for s in survey(scale_set) if _takes_part(s)}
    return UpgradePurpose.OS_IMAGE if digests - {target_digest} else UpgradePurpose.MODEL


def admit_upgrade(
    scale_set: ScaleSet,
    *,
    target_version: str,
    target_digest: str,
    now: datetime,
    policy: RollingUpgradePolicy | None = None,
) -> Refusal | None:
    """None: it may start. The same limits are checked again before every batch.

    `policy`: what bounds it, where that is not the spec's rollingUpgradePolicy.
    """
    name = scale_set.name
    if scale_set.is_deleting:
        return Refusal(
            message=f"{name!r} is being deleted", hint=f"finish it with: labctl delete {name}"
        )
    if scale_set.upgrade is not None and not scale_set.upgrade.code.is_final:
        running = scale_set.upgrade
        return Refusal(
            message=f"upgrade {running.id} to {running.target} has been running for "
            f"{(now - running.started_at).total_seconds():.0f} s"
            + (", and is paused by its user" if running.paused_at else ""),
            hint=(f"go on: labctl upgrade resume {name}; " if running.paused_at else "")
            + f"watch it: labctl upgrade watch {name}; stop it: labctl upgrade cancel {name}",
        )
    situations = [s for s in survey(scale_set) if s.is_counted]
    purpose = find_purpose(scale_set, target_digest)
    if purpose is UpgradePurpose.MODEL and all(
        s.current.model_revision >= scale_set.model_revision
        or s.instance.protect_from_scale_set_actions
        for s in situations
    ):
        return Refusal(
            message=f"nothing to upgrade: all {len(situations)} instances that should run are on "
            f"{target_version} already{_name_protected(situations, target_digest)}",
            hint="publish a newer image version, or name another one with --version",
            is_done=True,
        )
    if any(s.instance.domain.power is Power.UNKNOWN for s in situations):
        return Refusal(message="the hypervisor does not answer", hint="run: labctl doctor")
    fault = find_unhealthy_set(
        situations, policy or scale_set.spec.upgrade_policy.rolling_upgrade_policy
    )
    if fault is not None:
        return Refusal(
            message=fault,
            hint=f"see: labctl instance list {name}, and labctl why INSTANCE; or raise "
            "maxUnhealthyInstancePercent",
            code=UpgradeErrorCode.UNHEALTHY_BEFORE,
        )
    for situation in situations:
        if is_on_its_way(situation):
            return Refusal(
                message=f"{situation.instance.name} is not provisioned yet: "
                f"{judge(situation).reason}",
                hint="finish it with: labctl apply",
            )
    return None


def _name_protected(situations: Sequence[Situation], target_digest: str) -> str:
    names = [s.instance.name for s in situations if s.current.image_digest != target_digest]
    return f", or protected from scale set actions: {', '.join(names)}" if names else ""
