"""How an upgrade stops at a limit: what failed goes back first, where the policy asks for it."""

from collections.abc import Sequence

from labctl.model.plan import BeginRollback, EndUpgrade, Plan
from labctl.model.upgrade import MemberState, Upgrade, UpgradeCode, UpgradeError
from labctl.planner.health import is_credential_refused, judge
from labctl.planner.hooks import find_undrain
from labctl.planner.situation import Situation
from labctl.planner.surge import find_untouched


def stop_at_limit(upgrade: Upgrade, error: UpgradeError, situations: Sequence[Situation]) -> Plan:
    """Put the failed ones back to what they ran before the upgrade, or end it at once.

    The code is RollingBack until all of them have come to rest; then `end_faulted` ends it.
    """
    # Batch 1 left web_0 failed, which was tolerated. In batch 2 web_4 fails, too, and that is one
    # too many: both go back, unless web_0 has recovered since, and the upgrade ends Faulted.
    if not upgrade.policy.rollback_failed_instances_on_policy_breach:
        return end_faulted(upgrade, error)
    failed = tuple(s.instance.name for s in situations if _can_go_back(s))
    untouched = find_untouched(upgrade, situations)
    if not failed:
        return Plan(decisions=untouched) if untouched else end_faulted(upgrade, error)
    begin = BeginRollback(
        upgrade=upgrade.id,
        instances=failed,
        error=error,
        reason=f"{error.message}; back to what they ran before: {', '.join(failed)}",
    )
    return Plan(decisions=(*untouched, begin))


def end_faulted(upgrade: Upgrade, error: UpgradeError) -> Plan:
    """End the upgrade for this reason."""
    ended = EndUpgrade(
        upgrade=upgrade.id, code=UpgradeCode.FAULTED, reason=error.message, error=error
    )
    return Plan(decisions=(ended,))


def _can_go_back(situation: Situation) -> bool:
    """Did it fail, is it still unhealthy, and is its previous OS disk there and its own matter?"""
    member, instance = situation.member, situation.instance
    if member is None or member.state is not MemberState.FAILED or not situation.is_counted:
        return False
    if member.replaced_by is not None:
        return False
    is_in_service = find_undrain(situation) is None
    if instance.protect_from_scale_set_actions or (judge(situation).is_healthy and is_in_service):
        return False
    # Reimaged by its user meanwhile: another disk than the upgrade's is not the upgrade's matter.
    is_on_it = instance.generation == member.to_generation != member.from_generation
    has_previous = instance.find_generation(member.from_generation or 0) is not None
    return is_on_it and has_previous and not is_credential_refused(situation)
