"""Automatic repairs: who, when, how many, and when no more."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import (
    DomainFacts,
    Failure,
    Health,
    HealthState,
    Instance,
    Power,
    Rung,
    Wanted,
)
from labctl.model.plan import BeginRepair, EndRepair, Hold, ScaleSet, SuspendRepairs
from labctl.model.repair import Repair, RepairOutcome, RepairService
from labctl.model.spec import AutomaticRepairsPolicy, RepairAction
from labctl.model.upgrade import MemberState, UpgradeCode
from labctl.planner import plan
from labctl.planner.foresight import record
from labctl.planner.repairs import limit_repairs
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

SICK = Health(
    state=HealthState.UNHEALTHY, since=T0 - timedelta(minutes=1), detail="HTTP 503 from /health"
)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def make_policy(**values) -> AutomaticRepairsPolicy:
    return AutomaticRepairsPolicy(**({"enabled": True, "repair_action": "Restart"} | values))


def make_sick(ordinal: int, **changes) -> Instance:
    return make_instance(ordinal, **({"health": SICK} | changes))


def repairing(*instances: Instance, policy=None, **changes) -> ScaleSet:
    spec = make_spec(len(instances), automatic_repairs_policy=policy or make_policy())
    return make_set(len(instances), spec=spec, instances=instances, **changes)


def make_repair(ordinal: int, *, id: int = 1, **changes) -> Repair:  # noqa: A002
    values = {
        "instance": f"web_{ordinal}",
        "ordinal": ordinal,
        "action": RepairAction.RESTART,
        "began_at": T0 - timedelta(minutes=30),
        "reason": "unhealthy",
    }
    return Repair(id=id, **(values | changes))


def make_ended(ordinal: int, outcome: RepairOutcome, *, id: int, **changes) -> Repair:  # noqa: A002
    at = T0 - timedelta(hours=2) + id * MINUTE
    changes = {"began_at": at, "ended_at": at, "outcome": outcome} | changes
    return make_repair(ordinal, id=id, **changes)


def make_tried(ordinal: int, minutes: int = 20, **changes) -> Instance:
    """Unhealthy again, that long after a restart by an open repair."""
    at = T0 - timedelta(minutes=minutes)
    generation = make_generation(started_at=at, ready_at=at, extensions=RUN_LONG_AGO)
    return make_sick(ordinal, **({"generations": (generation,)} | changes))


RUN_LONG_AGO = make_generation().extensions


def decide(scale_set: ScaleSet, now=T0):
    return plan(scale_set, now).decisions


def hold_of(scale_set: ScaleSet, name: str = "web_0", now=T0) -> Hold | None:
    return next((h for h in plan(scale_set, now).holds if h.subject == name), None)


# --- who and when ---------------------------------------------------------------------------------


@pytest.mark.parametrize("action", list(RepairAction))
def test_an_unhealthy_instance_is_repaired_as_the_policy_says(action):
    scale_set = repairing(make_instance(0), make_sick(1), policy=make_policy(repair_action=action))
    assert decide(scale_set) == (
        BeginRepair(
            instance="web_1",
            action=action,
            reason=f"{action}, try 1 of 3; unhealthy: HTTP 503 from /health",
        ),
    )


def test_unknown_is_repaired_and_initializing_is_not():
    unknown = replace(SICK, state=HealthState.UNKNOWN, detail="no answer")
    assert [type(d) for d in decide(repairing(make_sick(0, health=unknown)))] == [BeginRepair]
    starting = replace(SICK, state=HealthState.INITIALIZING)
    assert decide(repairing(make_sick(0, health=starting))) == ()


def test_nothing_is_repaired_unless_the_policy_enables_it():
    scale_set = repairing(make_sick(0), policy=AutomaticRepairsPolicy())
    assert decide(scale_set) == ()
    assert hold_of(scale_set).reason == "waiting for health: HTTP 503 from /health"


@pytest.mark.parametrize(
    "protection",
    [
        {"protect_from_scale_in": True},
        {"protect_from_scale_in": True, "protect_from_scale_set_actions": True},
    ],
)
def test_a_protected_instance_is_not_repaired(protection):
    scale_set = repairing(make_sick(0, **protection), make_sick(1))
    assert [d.instance for d in decide(scale_set)] == ["web_1"]
    assert hold_of(scale_set).reason == "not repaired: protected; HTTP 503 from /health"


@pytest.mark.parametrize("wanted", [Wanted.STOPPED, Wanted.DELETED])
def test_one_that_shall_not_run_is_not_repaired(wanted):
    assert not any(
        isinstance(d, BeginRepair) for d in decide(repairing(make_sick(0, wanted=wanted)))
    )


def test_what_failed_provisioning_is_left_alone():
    failure = Failure(rung=Rung.SSH, message="no banner", at=T0 - timedelta(minutes=40))
    never = make_generation(ready_at=None, extensions=(), failure=failure)
    scale_set = repairing(make_sick(0, generations=(never,)))
    assert decide(scale_set) == ()
    assert hold_of(scale_set).reason == (
        "failed at ssh: no banner; automatic repairs leave alone what is not provisioned; "
        "to try again: labctl instance restart web_0"
    )


def test_one_that_went_off_is_switched_on_and_not_repaired():
    off = DomainFacts(generation=1, power=Power.STOPPED, reason="crashed")
    answer = plan(repairing(make_sick(0, domain=off)), T0)
    assert answer.decisions == ()
    assert [type(a).__name__ for a in answer.actions] == ["Start"]


def test_one_that_the_hypervisor_paused_is_not_repaired():
    paused = DomainFacts(generation=1, power=Power.PAUSED, reason="ioerror")
    assert decide(repairing(make_sick(0, domain=paused))) == ()


def test_nobody_is_repaired_while_the_hypervisor_is_silent():
    silent = make_instance(1, domain=DomainFacts(generation=1, power=Power.UNKNOWN))
    assert decide(repairing(make_sick(0), silent)) == ()


def test_nobody_is_repaired_in_a_set_that_is_being_deleted():
    leaving = repairing(make_sick(0, wanted=Wanted.DELETED), is_deleting=True)
    assert decide(replace(leaving, repairs=(make_repair(0),))) == ()


def test_nobody_is_repaired_while_an_upgrade_runs():
    scale_set = upgrading(repairing(*(make_instance(n) for n in range(9)), make_sick(9)))
    assert not any(isinstance(d, BeginRepair) for d in decide(scale_set))
    over = replace(scale_set, upgrade=replace(scale_set.upgrade, code=UpgradeCode.COMPLETED))
    assert [d.instance for d in decide(over)] == ["web_9"]


def test_the_hold_during_an_upgrade_names_it():
    moving = upgrading(repairing(make_instance(0), make_sick(1)), batches=1)
    members = tuple(
        replace(m, state=MemberState.IN_PROGRESS, batch=1, from_generation=1, to_generation=1)
        if m.ordinal == 0
        else m
        for m in moving.upgrade.members
    )
    ill = replace(moving.instances[0], health=SICK)
    busy = replace(
        moving,
        instances=(ill, moving.instances[1]),
        upgrade=replace(moving.upgrade, members=members),
    )
    assert hold_of(busy, "web_1").reason == (
        "HTTP 503 from /health; not repaired: upgrade 7 is running"
    )


# --- the grace period -----------------------------------------------------------------------------

TEN = timedelta(minutes=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": T0 - TEN},
        {"generations": (make_generation(started_at=T0 - TEN, ready_at=T0 - TEN),)},
        {"generations": (make_generation(ready_at=T0 - TEN),)},
        {
            "generations": (
                make_generation(
                    extensions=tuple(replace(r, finished_at=T0 - TEN) for r in RUN_LONG_AGO)
                ),
            )
        },
    ],
    ids=["created", "started", "ready", "extension"],
)
def test_the_grace_period_runs_anew_from_each_change(changes):
    scale_set = repairing(make_sick(0, **changes))
    assert [type(d) for d in decide(scale_set)] == [BeginRepair]
    early = T0 - SECOND
    assert decide(scale_set, early) == ()
    assert hold_of(scale_set, now=early) == Hold(
        subject="web_0",
        reason="Restart after the grace period, 1 s of 600 s left: HTTP 503 from /health",
        until=T0,
    )


def test_an_illness_of_today_does_not_wait_for_the_grace_period_of_yesterday():
    ill = replace(SICK, since=T0)
    assert [type(d) for d in decide(repairing(make_sick(0, health=ill)))] == [BeginRepair]


# --- how many at once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "limit"), [(1, 1), (19, 1), (20, 1), (39, 1), (40, 2), (60, 3), (1000, 50)]
)
def test_five_percent_at_once_and_at_least_one(total, limit):
    assert limit_repairs(total) == limit


def test_the_others_wait_for_their_turn():
    scale_set = repairing(*(make_sick(n) for n in range(3)))
    assert [d.instance for d in decide(scale_set)] == ["web_0"]
    begun = record(scale_set, decide(scale_set)[0], T0)
    assert decide(begun) == ()
    assert hold_of(begun, "web_1").reason == (
        "waiting for its repair, at most 1 of 3 at once: HTTP 503 from /health"
    )


def test_an_open_repair_of_one_that_is_gone_for_now_takes_up_the_share():
    replaced = make_repair(0, action=RepairAction.REPLACE, began_at=T0 - MINUTE)
    leaving = make_sick(0, wanted=Wanted.DELETED)
    scale_set = replace(repairing(leaving, make_sick(1)), repairs=(replaced,))
    assert decide(scale_set) == ()


def test_an_ordinal_that_is_being_replaced_counts_in_the_total():
    # Of 40 two at once, though only 39 are there while one is replaced.
    replaced = make_repair(0, action=RepairAction.REPLACE, began_at=T0 - MINUTE)
    others = [make_sick(1), *(make_instance(n) for n in range(2, 40))]
    scale_set = repairing(make_sick(0, wanted=Wanted.DELETED), *others)
    assert [d.instance for d in decide(replace(scale_set, repairs=(replaced,)))] == ["web_1"]


# --- the end of a repair --------------------------------------------------------------------------


def test_a_repair_ends_when_its_instance_is_healthy():
    healed = make_tried(0, health=Health(state=HealthState.HEALTHY, since=T0))
    scale_set = replace(repairing(healed), repairs=(make_repair(0),))
    assert decide(scale_set) == (
        EndRepair(
            repair=1,
            instance="web_0",
            outcome=RepairOutcome.HEALTHY,
            reason="healthy after restart",
        ),
    )


def test_health_from_before_the_repair_took_effect_does_not_end_it():
    scale_set = replace(repairing(make_instance(0)), repairs=(make_repair(0, began_at=T0),))
    assert decide(scale_set) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wanted": Wanted.STOPPED}, "stopped by its user meanwhile"),
        ({"wanted": Wanted.DELETED}, "deleted meanwhile"),
        ({"protect_from_scale_in": True}, "protected meanwhile"),
    ],
)
def test_a_person_may_come_in_between(changes, reason):
    scale_set = replace(repairing(make_sick(0, **changes)), repairs=(make_repair(0),))
    scale_set = replace(
        scale_set,
        spec=scale_set.spec.model_copy(
            update={"capacity": 0 if changes.get("wanted") is Wanted.DELETED else 1}
        ),
    )
    assert decide(scale_set) == (
        EndRepair(repair=1, instance="web_0", outcome=RepairOutcome.CANCELLED, reason=reason),
    )


def test_a_repair_of_an_ordinal_that_is_wanted_no_more_ends():
    scale_set = replace(repairing(make_instance(0)), repairs=(make_repair(1),))
    assert [(d.outcome, d.reason) for d in decide(scale_set)] == [
        (RepairOutcome.CANCELLED, "deleted meanwhile")
    ]


def test_switching_repairs_off_ends_what_is_open():
    scale_set = repairing(make_sick(0), policy=AutomaticRepairsPolicy())
    assert [
        (d.outcome, d.reason) for d in decide(replace(scale_set, repairs=(make_repair(0),)))
    ] == [(RepairOutcome.CANCELLED, "automatic repairs were switched off")]


def test_the_instance_that_is_being_replaced_is_awaited():
    replaced = make_repair(0, action=RepairAction.REPLACE, began_at=T0 - MINUTE)
    leaving = make_sick(0, wanted=Wanted.DELETED)
    answer = plan(replace(repairing(leaving), repairs=(replaced,)), T0)
    assert answer.decisions == ()
    assert [h.reason for h in answer.holds if h.subject == "web"] == [
        "web_0 is created again when its deletion is through"
    ]


def test_the_new_instance_can_be_deleted_by_a_person():
    replaced = make_repair(0, action=RepairAction.REPLACE)
    fresh = make_sick(0, wanted=Wanted.DELETED, created_at=T0 - MINUTE)
    scale_set = replace(repairing(fresh), repairs=(replaced,))
    scale_set = replace(scale_set, spec=scale_set.spec.model_copy(update={"capacity": 0}))
    assert [d.reason for d in decide(scale_set)] == ["deleted meanwhile"]


# --- failure, again and again ---------------------------------------------------------------------


def test_what_did_not_help_is_tried_again_in_the_same_turn():
    scale_set = replace(repairing(make_tried(0), make_sick(1)), repairs=(make_repair(0),))
    assert decide(scale_set) == (
        EndRepair(
            repair=1,
            instance="web_0",
            outcome=RepairOutcome.FAILED,
            reason="still unhealthy after restart: HTTP 503 from /health",
        ),
        BeginRepair(
            instance="web_0",
            action=RepairAction.RESTART,
            reason="Restart, try 2 of 3; unhealthy: HTTP 503 from /health",
        ),
    )


def test_a_repair_has_the_grace_period_to_help():
    scale_set = replace(repairing(make_tried(0, minutes=9)), repairs=(make_repair(0),))
    assert decide(scale_set) == ()
    assert hold_of(scale_set) == Hold(
        subject="web_0",
        reason="repair 1 (Restart) has not helped yet, 60 s of 600 s left: HTTP 503 from /health",
        until=T0 + MINUTE,
    )


def test_a_repair_that_could_not_begin_yet_has_not_failed():
    # Switched on an hour ago, ill since, and its restart waits for room on the host.
    scale_set = replace(repairing(make_sick(0)), repairs=(make_repair(0),))
    assert decide(scale_set) == ()


def test_a_boot_that_fails_during_a_repair_is_repaired_again():
    at = T0 - timedelta(minutes=20)
    failure = Failure(rung=Rung.SSH, message="no banner", at=at)
    generation = make_generation(started_at=at, ready_at=None, failure=failure)
    scale_set = repairing(make_sick(0, generations=(generation,)))
    scale_set = replace(scale_set, repairs=(make_repair(0),))
    assert [type(d) for d in decide(scale_set)] == [EndRepair, BeginRepair]
    assert decide(scale_set, at + TEN - SECOND) == ()


def test_one_that_is_paused_during_its_repair_is_repaired_again():
    paused = DomainFacts(generation=1, power=Power.PAUSED, reason="ioerror")
    scale_set = replace(repairing(make_tried(0, domain=paused)), repairs=(make_repair(0),))
    assert [type(d) for d in decide(scale_set)] == [EndRepair, BeginRepair]


def earlier(*outcomes: RepairOutcome, ordinal: int = 0) -> tuple[Repair, ...]:
    return tuple(make_ended(ordinal, o, id=n) for n, o in enumerate(outcomes, start=1))


FAILED, HEALTHY, CANCELLED = (
    RepairOutcome.FAILED,
    RepairOutcome.HEALTHY,
    RepairOutcome.CANCELLED,
)


def test_the_third_failure_in_a_row_suspends_all_repairs():
    repairs = (*earlier(FAILED, FAILED), make_repair(0, id=3))
    scale_set = replace(repairing(make_tried(0), make_sick(1)), repairs=repairs)
    assert [type(d) for d in decide(scale_set)] == [EndRepair, SuspendRepairs]
    assert decide(scale_set)[-1] == SuspendRepairs(
        reason="web_0 was repaired 3 times and is still unhealthy: HTTP 503 from /health"
    )


@pytest.mark.parametrize("between", [HEALTHY, CANCELLED])
def test_only_failures_in_a_row_count(between):
    repairs = (*earlier(FAILED, between, FAILED), make_repair(0, id=4))
    scale_set = replace(repairing(make_tried(0)), repairs=repairs)
    assert [type(d) for d in decide(scale_set)] == [EndRepair, BeginRepair]
    assert "try 3 of 3" in decide(scale_set)[-1].reason


def test_failures_of_others_do_not_count_in_a_row():
    repairs = (*earlier(FAILED, FAILED, ordinal=1), make_repair(0, id=3))
    scale_set = replace(repairing(make_tried(0), make_instance(1)), repairs=repairs)
    assert "try 2 of 3" in decide(scale_set)[-1].reason


def test_failures_from_before_a_resumption_do_not_count():
    repairs = (*earlier(FAILED, FAILED), make_repair(0, id=3))
    service = RepairService(resumed_at=repairs[1].began_at + SECOND)
    scale_set = replace(repairing(make_tried(0)), repairs=repairs, repair_service=service)
    assert "try 2 of 3" in decide(scale_set)[-1].reason


def test_repairs_are_suspended_when_most_of_them_fail():
    # Of the last ten six failed, each on another instance: they share a fault.
    outcomes = (HEALTHY, HEALTHY, HEALTHY, HEALTHY, FAILED, FAILED, FAILED, FAILED, FAILED)
    repairs = tuple(make_ended(n, o, id=n) for n, o in enumerate(outcomes, start=1))
    scale_set = repairing(make_tried(0), *(make_instance(n) for n in range(1, 10)))
    scale_set = replace(scale_set, repairs=(*repairs, make_repair(0, id=10)))
    assert decide(scale_set)[-1] == SuspendRepairs(
        reason="6 of the last 10 repairs failed; latest web_0: HTTP 503 from /health"
    )


def test_half_of_them_may_fail():
    outcomes = (*[HEALTHY] * 5, *[FAILED] * 4)
    repairs = tuple(make_ended(n, o, id=n) for n, o in enumerate(outcomes, start=1))
    scale_set = repairing(make_tried(0), *(make_instance(n) for n in range(1, 10)))
    scale_set = replace(scale_set, repairs=(*repairs, make_repair(0, id=10)))
    assert isinstance(decide(scale_set)[-1], BeginRepair)


def test_four_failures_of_different_instances_are_too_few_to_judge():
    repairs = tuple(make_ended(n, FAILED, id=n) for n in range(1, 4))
    scale_set = repairing(make_tried(0), *(make_instance(n) for n in range(1, 4)))
    scale_set = replace(scale_set, repairs=(*repairs, make_repair(0, id=4)))
    assert isinstance(decide(scale_set)[-1], BeginRepair)
    more = (*repairs, make_ended(3, FAILED, id=4), make_repair(0, id=5))
    assert isinstance(decide(replace(scale_set, repairs=more))[-1], SuspendRepairs)


def test_suspended_repairs_neither_begin_nor_fail_and_say_why():
    service = RepairService(suspended_at=T0, suspended_reason="a bad day")
    scale_set = replace(
        repairing(make_tried(0), make_sick(1)),
        repairs=(make_repair(0),),
        repair_service=service,
    )
    assert decide(scale_set) == ()
    assert hold_of(scale_set, "web_1").reason == (
        "HTTP 503 from /health; not repaired: automatic repairs are suspended (a bad day); "
        "to go on: labctl repairs resume web"
    )


# --- what becomes of the facts --------------------------------------------------------------------


def test_a_restart_is_a_wish():
    scale_set = record(repairing(make_sick(0)), decide(repairing(make_sick(0)))[0], T0)
    assert scale_set.instances[0].restart_asked_at == T0
    action = plan(scale_set, T0).actions[0]
    assert (type(action).__name__, action.reason) == ("Stop", "repair 1: restart")


def test_a_reimage_is_a_new_disk_of_the_same_image_and_model():
    policy = make_policy(repair_action="Reimage")
    scale_set = repairing(make_sick(0, restart_asked_at=T0 - 2 * TEN * 10), policy=policy)
    begin = BeginRepair(instance="web_0", action=RepairAction.REIMAGE, reason="")
    instance = record(scale_set, begin, T0).instances[0]
    old, new = instance.generations
    assert (instance.generation, new.number, new.prepared) == (2, 2, False)
    assert (new.image_digest, new.model_revision) == (old.image_digest, old.model_revision)
    assert instance.restart_asked_at is None


def test_a_replacement_begins_with_a_deletion():
    begin = BeginRepair(instance="web_0", action=RepairAction.REPLACE, reason="")
    assert record(repairing(make_sick(0)), begin, T0).instances[0].wanted is Wanted.DELETED
