"""Which instances an upgrade takes next, and how many at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.model.spec import RollingUpgradePolicy
from labctl.model.upgrade import MemberState, Upgrade
from labctl.planner.health import Verdict, is_on_its_way, judge
from labctl.planner.situation import Situation

_SMALL = 5  # scale sets up to this size are upgraded one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of the pending instances when a batch was chosen."""

    batch: tuple[Situation, ...]
    skipped: tuple[tuple[Situation, str], ...]  # with the reason
    waiting: tuple[Situation, ...]  # still on their way; they come later


def limit_batch(total: int, policy: RollingUpgradePolicy) -> int:
    """How many of `total` instances may be down for the upgrade at once."""
    # 20 %: of 20 four, of 9 one (1.8 would be more than the share), of 5 or fewer always one.
    if total <= _SMALL:
        return 1
    return max(1, total * policy.max_batch_instance_percent // 100)


def choose_batch(situations: Sequence[Situation], upgrade: Upgrade) -> Choice:
    """Take pending instances in order, as long as no more than the allowed share is down.

    Instances that are down already use up the share, unless they are in the batch themselves.
    The first is always taken: a batch has at least one instance.
    """
    # 20 instances, limit 4, web_10 and web_15 are unhealthy: the batch is web_0 and web_1; with
    # prioritizeUnhealthyInstances it is web_10, web_15, web_0 and web_1. Down are 4 either way.
    verdicts = {s.instance.name: judge(s) for s in situations}
    counted = [s for s in situations if s.is_counted]
    limit = limit_batch(len(counted), upgrade.policy)
    down = {s.instance.name for s in counted if not verdicts[s.instance.name].is_healthy}
    batch: list[Situation] = []
    skipped: list[tuple[Situation, str]] = []
    waiting: list[Situation] = []
    for situation in _sort_pending(situations, verdicts, upgrade.policy):
        name = situation.instance.name
        if not situation.is_counted:
            skipped.append((situation, "stopped by its user"))
        elif situation.instance.protect_from_scale_set_actions:
            skipped.append((situation, "protected from scale set actions"))
        elif situation.current.image_digest == upgrade.target_digest:
            skipped.append((situation, f"runs {situation.current.image_version} already"))
        elif is_on_its_way(situation):
            waiting.append(situation)
        elif batch and len(down | {name}) > limit:  # `down` holds the batch, too
            break
        else:
            batch.append(situation)
            down.add(name)
    return Choice(batch=tuple(batch), skipped=tuple(skipped), waiting=tuple(waiting))


def _sort_pending(
    situations: Sequence[Situation], verdicts: dict[str, Verdict], policy: RollingUpgradePolicy
) -> list[Situation]:
    pending = [s for s in situations if s.member and s.member.state is MemberState.PENDING]
    if policy.prioritize_unhealthy_instances:
        pending.sort(key=lambda s: not verdicts[s.instance.name].is_unhealthy)
    return pending
