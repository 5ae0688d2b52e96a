"""What stops an upgrade: unhealthy instances in the set or among the upgraded, a credential."""

from collections.abc import Sequence

from labctl.model.upgrade import MemberState, Upgrade
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.planner.health import is_credential_refused, judge
from labctl.planner.hooks import find_refused_undrain
from labctl.planner.situation import Situation


def find_unhealthy_set(situations: Sequence[Situation], policy: RollingUpgradePolicy) -> str | None:
    """Say so when more of the whole set is unhealthy than allowed, for whatever reason."""
    # 20 % of 10: two are allowed, three are too many.
    counted = [s for s in situations if s.is_counted]
    unhealthy = [(s.instance.name, why) for s in counted if (why := _find_ill(s)) is not None]
    limit = policy.max_unhealthy_instance_percent
    if not _exceeds(len(unhealthy), len(counted), limit):
        return None
    name, why = unhealthy[0]
    share = _share(len(unhealthy), len(counted))
    return f"unhealthy in the scale set: {share}, more than {limit} %; first {name}: {why}"


def _find_ill(situation: Situation) -> str | None:
    """Why it serves nobody: it is unhealthy, or well and could not be put back into service."""
    verdict = judge(situation)
    return verdict.reason if verdict.is_unhealthy else find_refused_undrain(situation)


def find_unhealthy_upgraded(upgrade: Upgrade, situations: Sequence[Situation]) -> str | None:
    """Say so when more of the upgraded instances failed, or fell ill since, than allowed."""
    verdicts = {s.instance.name: judge(s) for s in situations if s.is_counted}
    attempted = 0
    failed: list[tuple[str, str]] = []
    for member in sorted(upgrade.members, key=lambda m: (m.batch or 0, m.ordinal)):
        verdict = verdicts.get(member.carrier)
        if member.state.has_failed:
            attempted += 1
            failed.append((member.instance, member.message))
        elif member.state is MemberState.SUCCEEDED:
            attempted += 1
            if verdict is not None and verdict.is_unhealthy:
                failed.append((member.carrier, f"healthy at first, then {verdict.reason}"))
    limit = upgrade.policy.max_unhealthy_upgraded_instance_percent
    if not _exceeds(len(failed), attempted, limit):
        return None
    name, message = failed[0]
    return (
        f"unhealthy after the upgrade to {upgrade.target}: "
        f"{_share(len(failed), attempted)}, more than {limit} %; first {name}: {message}"
    )


def find_refused_credential(upgrade: Upgrade, situations: Sequence[Situation]) -> str | None:
    """Say so when a member was left failed because a credential was refused; one is enough."""
    # The next instances would fail by the same credential, whatever share of them may.
    refused = {s.instance.name for s in situations if is_credential_refused(s)}
    for member in sorted(upgrade.members, key=lambda m: (m.batch or 0, m.ordinal)):
        if member.state is MemberState.FAILED and member.carrier in refused:
            return describe_refusal(member.instance, member.message)
    return None


def describe_refusal(instance: str, failure: str) -> str:
    """What to do when a credential was refused."""
    return (
        f"{instance} is left failed: {failure}; renew the credential in the spec, then run: "
        "labctl apply"
    )


def _exceeds(count: int, total: int, percent: int) -> bool:
    """Strictly more than `percent`; whole numbers, so that 20 % of 5 is exactly one."""
    return count * 100 > percent * total


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({round(100 * count / total, 1):g} %)"
