"""Drained before a stop by labctl, undrained when healthy again."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.hook import Hook, HookKind, Hooks, OnHookFailure
from labctl.model.instance import (
    DomainFacts,
    ExtensionRun,
    Health,
    HealthState,
    HookFailure,
    Power,
    Wanted,
)
from labctl.model.instance_policy import RepairAction
from labctl.model.plan import (
    BeginRollback,
    CreateInstance,
    DeleteInstance,
    Hold,
    MoveMember,
    Prepare,
    RunHook,
    Stop,
)
from labctl.model.repair import Repair
from labctl.model.upgrade import MemberState, UpgradeErrorCode
from labctl.planner import explain, plan, preview
from labctl.planner.foresight import record
from labctl.planner.hook_facts import find_member
from labctl.planner.hooks import find_wait
from labctl.planner.outcome import change_current
from tests.planner.hook_stories import BOTH, make_hooked_set
from tests.planner.world import (
    NEW,
    T0,
    digest,
    make_generation,
    make_instance,
    make_policy,
    upgrading,
)

DRAIN_ONLY = Hooks(drain=BOTH.drain)
LENIENT = Hooks(drain=Hook(command=("drain",), on_failure=OnHookFailure.CONTINUE))
SICK = Health(state=HealthState.UNHEALTHY, since=T0 - timedelta(minutes=3))


def ask(instance, hooks=BOTH, now=T0, **changes):
    """What the plan has for web_0."""
    scale_set = replace(make_hooked_set(1, hooks), instances=(instance,), **changes)
    answer = plan(scale_set, now)
    mine = [a for a in answer.actions if a.instance == "web_0"]
    return next(iter([*mine, *(h for h in answer.holds if h.subject == "web_0")]), None)


def drain(reason, *, is_binding=True, awaits_undrain=True):
    return RunHook(
        instance="web_0",
        kind=HookKind.DRAIN,
        is_binding=is_binding,
        awaits_undrain=awaits_undrain,
        reason=f"out of service before a stop: {reason}",
    )


UNDRAIN = RunHook(
    instance="web_0",
    kind=HookKind.UNDRAIN,
    is_binding=True,
    reason="healthy on OS disk 1, back into service",
)
RESTARTED = make_instance(0, restart_asked_at=T0)
SWAPPED = make_instance(
    0,
    generation=2,
    generations=(
        make_generation(),
        make_generation(2, NEW, started_at=None, ready_at=None, extensions=()),
    ),
)
LEAVING = make_instance(0, wanted=Wanted.DELETED)


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        (RESTARTED, "its user asked for a restart"),
        (SWAPPED, "image 1.1.0"),
        (LEAVING, "it is to be deleted"),
    ],
    ids=["restart", "swap", "delete"],
)
def test_whatever_a_stop_is_for_the_drain_comes_first(instance, reason):
    assert ask(instance) == drain(reason)
    done = {"drained_at": T0, "out_of_service_since": T0}
    assert isinstance(ask(replace(instance, **done)), Stop | DeleteInstance)
    assert isinstance(ask(instance, Hooks(undrain=BOTH.undrain)), Stop | DeleteInstance)


def test_the_new_disk_is_prepared_before_the_drain_begins():
    newest = make_generation(2, NEW, prepared=False, started_at=None, ready_at=None)
    instance = replace(SWAPPED, generations=(make_generation(), newest))
    assert isinstance(ask(instance), Prepare)


@pytest.mark.parametrize(
    "instance",
    [
        replace(RESTARTED, generations=(make_generation(ready_at=None),)),
        replace(LEAVING, domain=DomainFacts(generation=1, power=Power.STOPPED)),
        replace(LEAVING, domain=DomainFacts(generation=None, power=Power.STOPPED)),
        replace(LEAVING, domain=DomainFacts(generation=7, power=Power.RUNNING)),
        make_instance(0, wanted=Wanted.STOPPED),
    ],
    ids=["not ready", "off", "no domain", "unknown disk", "stopped by its user"],
)
def test_who_serves_nobody_or_is_stopped_by_its_user_is_not_drained(instance):
    assert isinstance(ask(instance), Stop | DeleteInstance)


def test_a_whole_set_is_deleted_without_draining_anybody():
    assert isinstance(ask(LEAVING, is_deleting=True), DeleteInstance)


def test_one_that_was_never_undrained_is_not_drained_again():
    out = replace(RESTARTED, out_of_service_since=T0)
    assert isinstance(ask(out), Stop)
    # Without an undrain hook nobody says when it is back, so each stop has its drain.
    assert ask(out, DRAIN_ONLY) == drain("its user asked for a restart", awaits_undrain=False)
    # An undrain that failed may have put it back into service before it did.
    tried = replace(out, hook_failure=failed(HookKind.UNDRAIN))
    assert ask(tried) == drain("its user asked for a restart")


def test_a_drain_binds_unless_it_may_fail_or_the_instance_is_ill():
    assert ask(RESTARTED, LENIENT) == drain(
        "its user asked for a restart", is_binding=False, awaits_undrain=False
    )
    ill = replace(RESTARTED, health=SICK)
    assert ask(ill) == drain("its user asked for a restart", is_binding=False)
    unasked = replace(RESTARTED, health=Health(state=HealthState.UNKNOWN))
    assert ask(unasked) == drain("its user asked for a restart")


def test_a_restore_is_not_held_up_by_its_drain():
    scale_set = upgrading(make_hooked_set(1, DRAIN_ONLY))
    upgrade = scale_set.upgrade
    assert upgrade is not None
    member = replace(
        upgrade.members[0],
        state=MemberState.ROLLING_BACK,
        batch=1,
        from_generation=1,
        to_generation=2,
        message="503",
    )
    running = DomainFacts(generation=2, power=Power.RUNNING)
    generations = (make_generation(ready_at=None, started_at=None), make_generation(2, NEW))
    instance = make_instance(0, generations=generations, domain=running)
    scale_set = replace(
        scale_set, instances=(instance,), upgrade=replace(upgrade, members=(member,), batches=1)
    )
    found = plan(scale_set, T0).actions
    assert found == (drain("batch 1: back to 1.0.0", is_binding=False, awaits_undrain=False),)


def test_who_is_out_of_service_is_undrained_only_when_healthy():
    out = make_instance(0, out_of_service_since=T0)
    assert ask(out) == UNDRAIN
    assert isinstance(ask(replace(out, health=SICK)), Hold)
    assert ask(out, DRAIN_ONLY) is None
    assert ask(make_instance(0)) is None


# --- failures -------------------------------------------------------------------------------------


def failed(kind, tries=1):
    return HookFailure(kind=kind, at=T0, message="exit code 3: no", tries=tries)


def test_outside_of_an_upgrade_a_drain_is_tried_again_later_each_time():
    instance = replace(RESTARTED, hook_failure=failed(HookKind.DRAIN, 2))
    assert ask(instance) == Hold(
        subject="web_0",
        reason="drain: exit code 3: no; tried again at 12:02:00 UTC; "
        "to try now: labctl instance restart web_0",
        until=T0 + timedelta(minutes=2),
    )
    again = T0 + timedelta(minutes=2)
    assert ask(instance, now=again) == drain("its user asked for a restart")
    leaving = ask(replace(LEAVING, hook_failure=failed(HookKind.DRAIN)))
    assert leaving.reason.endswith("to go on without it, set its onFailure to Continue")
    assert [find_wait(failed(HookKind.DRAIN, n)).total_seconds() / 60 for n in (1, 3, 7, 99)] == [
        1,
        4,
        60,
        60,
    ]


def test_what_is_stopped_because_it_is_ill_does_not_wait_for_an_earlier_failure():
    ill = replace(RESTARTED, health=SICK, hook_failure=failed(HookKind.DRAIN))
    assert ask(ill) == drain("its user asked for a restart", is_binding=False)


def test_a_failed_undrain_does_not_hold_up_a_drain():
    out = replace(RESTARTED, hook_failure=failed(HookKind.UNDRAIN))
    assert ask(out) == drain("its user asked for a restart")
    assert isinstance(ask(make_instance(0, out_of_service_since=T0)), RunHook)


def begun(instance_of):
    """An upgrade of one instance in its first batch; the disk is prepared."""
    scale_set = upgrading(make_hooked_set(1))
    for _ in range(2):
        for decision in plan(scale_set, T0).decisions:
            scale_set = record(scale_set, decision, T0)
    instance = scale_set.instances[0]
    return replace(scale_set, instances=(instance_of(instance),))


def test_a_member_whose_drain_failed_gets_back_what_it_had():
    before = make_instance(0)
    scale_set = begun(lambda i: replace(i, hook_failure=failed(HookKind.DRAIN)))
    move = MoveMember(
        upgrade=7,
        instance="web_0",
        state=MemberState.FAILED,
        reason="drain: exit code 3: no",
        is_untouched=True,
    )
    assert plan(scale_set, T0).decisions == (move,)
    after = record(scale_set, move, T0).instances[0]
    assert (after.generation, after.current) == (before.generation, before.current)
    assert after.generations[1].evidence_at == T0  # nothing is to be saved: it can be thrown away


def test_only_the_batch_that_was_asked_for_fails_by_a_drain():
    scale_set = begun(lambda i: replace(i, hook_failure=failed(HookKind.UNDRAIN)))
    assert not plan(scale_set, T0).decisions


def test_why_tells_who_is_out_of_service():
    failure = failed(HookKind.UNDRAIN, 2)
    instance = make_instance(0, out_of_service_since=T0, hook_failure=failure)
    scale_set = replace(make_hooked_set(1), instances=(instance,))
    lines = explain(scale_set, instance, T0)
    assert "out of service since 2026-01-01 12:00:00 UTC" in lines
    assert "undrain failed (2 in a row): exit code 3: no" in lines


def test_a_dry_run_names_the_hooks_of_each_batch():
    found = preview(make_hooked_set(2), target_version=NEW, target_digest=digest(NEW), now=T0)
    assert [(b.drains, b.undrains) for b in found.batches] == [
        (("web_0",), ("web_0",)),
        (("web_1",), ("web_1",)),
    ]


def test_who_stands_in_for_a_drained_one_begins_out_of_service():
    repair = Repair(
        id=1, instance="web_0", ordinal=0, action=RepairAction.REPLACE, began_at=T0, reason="503"
    )
    empty = replace(make_hooked_set(1), instances=(), repairs=(repair,))
    create = CreateInstance(ordinal=0, reason="capacity is 1, present are 0")
    assert plan(empty, T0).decisions == (create,)
    assert record(empty, create, T0).instances[0].out_of_service_since == T0
    for other in (
        replace(empty, repairs=()),
        replace(empty, repairs=(replace(repair, action=RepairAction.RESTART),)),
        replace(make_hooked_set(1, Hooks()), instances=(), repairs=(repair,)),
    ):
        assert record(other, create, T0).instances[0].out_of_service_since is None


def test_a_failed_drain_of_a_member_is_not_tried_again_while_the_upgrade_cannot_judge():
    def prepare(generation):
        return replace(generation, prepared=True)

    scale_set = begun(
        lambda i: replace(change_current(i, prepare), hook_failure=failed(HookKind.DRAIN))
    )
    away = DomainFacts(generation=1, power=Power.UNKNOWN)
    instances = (*scale_set.instances, make_instance(1, domain=away))
    spec = scale_set.spec.model_copy(update={"capacity": 2})
    answer = plan(replace(scale_set, instances=instances, spec=spec), T0)
    assert not answer.actions
    reasons = {hold.subject: hold.reason for hold in answer.holds}
    assert reasons["web_0"] == "drain: exit code 3: no"


def test_who_is_in_no_upgrade_has_no_part_in_it():
    with pytest.raises(LookupError, match="web_0 is in no upgrade"):
        find_member(make_hooked_set(1), "web_0")


def test_what_is_broken_is_deleted_although_its_drain_fails():
    run = ExtensionRun(name="app", started_at=T0, finished_at=T0, exit_code=1)
    broken = replace(LEAVING, generations=(make_generation(extensions=(run,)),))
    assert ask(broken) == drain("it is to be deleted", is_binding=False)


def test_a_drain_refused_before_a_restart_of_the_new_disk_is_no_verdict_on_the_upgrade():
    scale_set = upgrading(make_hooked_set(1))
    upgrade = scale_set.upgrade
    assert upgrade is not None
    since = T0 - timedelta(seconds=30)
    member = replace(
        upgrade.members[0],
        state=MemberState.IN_PROGRESS,
        batch=1,
        from_generation=1,
        to_generation=2,
        admitted_at=T0 - timedelta(seconds=60),
        settled_at=T0,
    )
    instance = make_instance(
        0,
        generation=2,
        generations=(make_generation(), make_generation(2, NEW, started_at=since, ready_at=since)),
        domain=DomainFacts(generation=2, power=Power.RUNNING),
        restart_asked_at=T0 + timedelta(seconds=5),
        hook_failure=failed(HookKind.DRAIN),
    )
    scale_set = replace(
        scale_set, instances=(instance,), upgrade=replace(upgrade, members=(member,), batches=1)
    )
    answer = plan(scale_set, T0 + timedelta(seconds=6))
    assert answer.decisions == ()
    assert "tried again at" in answer.holds[0].reason


def test_one_that_cannot_be_put_back_into_service_counts_as_ill():
    out = make_instance(0, out_of_service_since=T0, hook_failure=failed(HookKind.UNDRAIN))
    scale_set = upgrading(make_hooked_set(4))
    others = tuple(make_instance(n) for n in (1, 2, 3))
    scale_set = replace(scale_set, instances=(out, *others))
    (ended,) = plan(scale_set, T0).decisions
    assert ended.error.code is UpgradeErrorCode.UNHEALTHY_BEFORE
    assert "1 of 4 (25 %)" in ended.reason
    assert "first web_0: undrain" in ended.reason
    # Where that is tolerated, it uses up the share that may be down.
    loose = make_policy(max_unhealthy_instance_percent=100, max_batch_instance_percent=20)
    ten = upgrading(make_hooked_set(10), policy=loose.rolling_upgrade_policy)
    rest = tuple(make_instance(n) for n in range(9))
    ill = make_instance(9, out_of_service_since=T0, hook_failure=failed(HookKind.UNDRAIN))
    (begin,) = plan(replace(ten, instances=(*rest, ill)), T0).decisions
    assert begin.instances == ("web_0",)


def test_what_could_not_be_put_back_into_service_goes_back_at_a_limit():
    policy = make_policy(rollback_failed_instances_on_policy_breach=True)
    scale_set = upgrading(make_hooked_set(1), policy=policy.rolling_upgrade_policy)
    upgrade = scale_set.upgrade
    assert upgrade is not None
    member = replace(
        upgrade.members[0],
        state=MemberState.FAILED,
        batch=1,
        from_generation=1,
        to_generation=2,
        message="undrain: exit code 3",
    )
    instance = make_instance(
        0,
        generation=2,
        generations=(make_generation(), make_generation(2, NEW)),
        domain=DomainFacts(generation=2, power=Power.RUNNING),
        out_of_service_since=T0,
        hook_failure=failed(HookKind.UNDRAIN),
    )
    changed = replace(upgrade, members=(member,), batches=1, batch_ended_at=T0)
    (back,) = plan(replace(scale_set, instances=(instance,), upgrade=changed), T0).decisions
    assert isinstance(back, BeginRollback)
    assert back.instances == ("web_0",)
