"""Which instances an upgrade takes next, and how many at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from labctl.model.instance import Generation
from labctl.model.upgrade import Member, MemberState, Upgrade, UpgradePurpose
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.planner.health import Verdict, is_initializing, is_on_its_way, judge
from labctl.planner.hooks import find_refused_undrain
from labctl.planner.lanes import bound_in_zone, find_lane
from labctl.planner.situation import Situation

_SMALL = 5  # scale sets up to this size are upgraded one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of the pending instances when a batch was chosen."""

    batch: tuple[Situation, ...]
    skipped: tuple[tuple[Situation, str], ...]  # with the reason
    waiting: tuple[Situation, ...]  # still on their way or initializing; they come later


def limit_batch(total: int, policy: RollingUpgradePolicy) -> int:
    """How many of `total` instances may be down for the upgrade at once."""
    # 20 %: of 20 four, of 9 one (1.8 would be more than the share), of 5 or fewer always one.
    if total <= _SMALL:
        return 1
    return max(1, total * policy.max_batch_instance_percent // 100)


def limit_next_batch(total: int, upgrade: Upgrade) -> int:
    """The same for the next batch of an upgrade: the first one may be a canary."""
    limit, canary = limit_batch(total, upgrade.policy), upgrade.control.canary
    return limit if canary is None or upgrade.batches else min(limit, canary.instances)


def choose_batch(situations: Sequence[Situation], upgrade: Upgrade) -> Choice:
    """Take pending instances of one phase and lane, while no more than the allowed share is down.

    Instances that are down already use up the share, unless they are in the batch themselves.
    The first is always taken: a batch has at least one instance.
    """
    # web_0 and web_3 are of phase 1, web_2 of phase 0, web_1 tells none. With one at a time the
    # order is web_2, web_0, web_3, web_1. While web_0 is on its way, web_3 goes, but web_1 waits.
    # 20 instances, limit 4, web_10 and web_15 are unhealthy: the batch is web_0 and web_1; with
    # prioritizeUnhealthyInstances it is web_10, web_15, web_0 and web_1. Down are 4 either way.
    verdicts = {s.instance.name: judge(s) for s in situations}
    counted = [s for s in situations if s.is_counted]
    limit = bound_in_zone(limit_next_batch(len(counted), upgrade), counted, upgrade)
    down = {
        s.instance.name
        for s in counted
        if not verdicts[s.instance.name].is_healthy or find_refused_undrain(s) is not None
    }
    batch: list[Situation] = []
    skipped: list[tuple[Situation, str]] = []
    waiting: list[Situation] = []
    for situation in _sort_pending(situations, verdicts, upgrade):
        name = situation.instance.name
        present = next((s for s in (*batch, *waiting)), situation)
        if _rank(situation, upgrade) != _rank(present, upgrade):
            break  # a phase or lane begins when the one before it is through
        if not situation.is_counted:
            skipped.append((situation, "stopped by its user"))
        elif situation.instance.protect_from_scale_set_actions:
            skipped.append((situation, "protected from scale set actions"))
        elif situation.member is not None and situation.member.skips_upgrade:
            skipped.append((situation, "its application asked for it (SkipUpgrade)"))
        elif is_reached(upgrade, situation.current):
            skipped.append((situation, _describe_reached(situation, upgrade)))
        elif is_on_its_way(situation) or is_initializing(situation):
            waiting.append(situation)
        elif batch and len(down | {name}) > limit:  # `down` holds the batch, too
            break
        else:
            batch.append(situation)
            down.add(name)
    return Choice(batch=tuple(batch), skipped=tuple(skipped), waiting=tuple(waiting))


def is_reached(upgrade: Upgrade, generation: Generation) -> bool:
    """Has this OS disk what the upgrade brings?"""
    # Model 3 is newest, the upgrade brings 2: an instance that got 3 meanwhile is not set back.
    return generation.image_digest == upgrade.target_digest and (
        upgrade.purpose is UpgradePurpose.OS_IMAGE
        or generation.model_revision >= upgrade.model_revision
    )


def _describe_reached(situation: Situation, upgrade: Upgrade) -> str:
    current = situation.current
    if upgrade.purpose is UpgradePurpose.OS_IMAGE:
        return f"runs {current.image_version} already"
    return f"runs {current.image_version} with model {current.model_revision} already"


def _sort_pending(
    situations: Sequence[Situation], verdicts: dict[str, Verdict], upgrade: Upgrade
) -> list[Situation]:
    pending = [s for s in situations if s.member and s.member.state is MemberState.PENDING]
    if upgrade.policy.prioritize_unhealthy_instances:
        pending.sort(key=lambda s: not verdicts[s.instance.name].is_unhealthy)
    pending.sort(key=lambda s: _rank(s, upgrade))  # keeps that order within each phase and lane
    return pending


def _rank(situation: Situation, upgrade: Upgrade) -> tuple[tuple[bool, int], tuple[int, int]]:
    """Where it is in the order: by phase, where who told no number comes last; then by lane."""
    phase = None if situation.member is None else situation.member.phase
    return (phase is None, phase or 0), find_lane(situation, upgrade).rank


def name_phase(upgrade: Upgrade, member: Member | None) -> str:
    """Say in reasons which phase it is; empty for an upgrade without phases."""
    if member is None or all(each.phase is None for each in upgrade.members):
        return ""
    return ", last phase" if member.phase is None else f", phase {member.phase}"


def count_batches(pending: Sequence[Situation], upgrade: Upgrade, limit: int) -> int:
    """How many batches of at most `limit` they need; a batch never spans phases or lanes."""
    # Three of phase 0 and one of phase 1, two at a time: 2 + 1.
    return sum(-(-n // limit) for n in Counter(_rank(s, upgrade) for s in pending).values())
