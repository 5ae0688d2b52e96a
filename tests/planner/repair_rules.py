"""Rules of repairs and protection that hold in every turn; see `rules.py`."""

from datetime import datetime

from labctl.model.instance import HealthState, Wanted
from labctl.model.plan import (
    BeginBatch,
    BeginRepair,
    EndRepair,
    Plan,
    RemoveInstance,
    ScaleSet,
    SuspendRepairs,
)
from labctl.model.repair import RepairOutcome

WORST = 3


def check_repairs(scale_set: ScaleSet, answer: Plan, now: datetime) -> None:
    """Raises AssertionError for a plan that breaks a rule of repairs or protection."""
    instances = {i.name: i for i in scale_set.instances}
    policy, service = scale_set.spec.automatic_repairs_policy, scale_set.repair_service
    ends = [d for d in answer.decisions if isinstance(d, EndRepair)]
    begins = [d for d in answer.decisions if isinstance(d, BeginRepair)]
    suspends = any(isinstance(d, SuspendRepairs) for d in answer.decisions)
    open_now = {r.id: r for r in scale_set.repairs if r.is_open}
    _check_protection(scale_set, answer)
    assert {d.repair for d in ends} <= set(open_now), "ends what is not open"
    gone_on = {d.instance for d in ends if d.outcome is RepairOutcome.FAILED}
    assert not suspends or gone_on, "suspended though nothing failed"
    if begins:
        counted = {i.ordinal for i in scale_set.instances if i.wanted is Wanted.RUNNING}
        total = len(counted | {r.ordinal for r in open_now.values()})
        left = len(open_now) - len(ends) + len(begins)
        assert left <= max(1, int(total / 20)), "more than the share in repair"
        assert policy.enabled
        assert not service.is_suspended, "suspended, yet repairs"
        assert not suspends, "suspends and repairs in one turn"
        assert scale_set.upgrade is None or scale_set.upgrade.code.is_final, "during an upgrade"
        assert not scale_set.is_deleting
    for begin in begins:
        instance = instances[begin.instance]
        current = instance.current
        assert begin.action is policy.repair_action
        assert instance.wanted is Wanted.RUNNING
        assert not instance.protect_from_scale_in
        assert not instance.protect_from_scale_set_actions
        already = [r for r in open_now.values() if r.ordinal == instance.ordinal]
        assert bool(already) == (begin.instance in gone_on), "repaired twice at once"
        is_ill = instance.is_settled and instance.health.state in {
            HealthState.UNHEALTHY,
            HealthState.UNKNOWN,
        }
        assert is_ill or begin.instance in gone_on, "repairs what is not unhealthy"
        assert current.failure is None or begin.instance in gone_on, "was never provisioned"
        changes = [instance.created_at, current.started_at, current.ready_at]
        changes += [run.finished_at for run in current.extensions]
        changes += [current.failure.at if current.failure else None]
        for change in changes:
            assert change is None or now - change >= policy.grace_period, "in the grace period"
        for each in already:
            assert now - each.began_at >= policy.grace_period
    _check_tries(scale_set)


def _check_protection(scale_set: ScaleSet, answer: Plan) -> None:
    instances = {i.name: i for i in scale_set.instances}
    for decision in answer.decisions:
        if isinstance(decision, RemoveInstance) and not scale_set.is_deleting:
            assert not instances[decision.instance].protect_from_scale_in, "protected, yet removed"
        if isinstance(decision, BeginBatch):
            for name in decision.instances:
                assert not instances[name].protect_from_scale_set_actions, "protected, yet upgraded"


def _check_tries(scale_set: ScaleSet) -> None:
    resumed_at = scale_set.repair_service.resumed_at
    counts: dict[int, int] = {}
    for repair in sorted(scale_set.repairs, key=lambda r: r.id):
        if resumed_at is not None and repair.began_at < resumed_at:
            continue
        if repair.outcome is RepairOutcome.FAILED:
            counts[repair.ordinal] = counts.get(repair.ordinal, 0) + 1
        elif repair.outcome is not None:
            counts[repair.ordinal] = 0
        assert counts.get(repair.ordinal, 0) <= WORST, "more tries than allowed"
