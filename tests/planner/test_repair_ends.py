"""How repairs end, and when repairing is given up."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import (
    DomainFacts,
    Failure,
    Health,
    HealthState,
    Power,
    Rung,
    Wanted,
)
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from labctl.model.plan import BeginRepair, EndRepair, Hold, SuspendRepairs
from labctl.model.repair import Repair, RepairOutcome, RepairService
from labctl.planner import plan
from labctl.planner.foresight import record
from tests.planner.repair_cases import (
    MINUTE,
    SECOND,
    decide,
    hold_of,
    make_ended,
    make_policy,
    make_repair,
    make_sick,
    make_tried,
    repairing,
)
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
)

TEN = timedelta(minutes=10)

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
