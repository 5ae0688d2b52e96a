"""Automatic repairs: who, when, and how many at once."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import (
    DomainFacts,
    Failure,
    HealthState,
    Power,
    Rung,
    Wanted,
)
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from labctl.model.plan import BeginRepair, Hold
from labctl.model.upgrade import MemberState, UpgradeCode
from labctl.planner import plan
from labctl.planner.foresight import record
from labctl.planner.repairs import limit_repairs
from tests.planner.repair_cases import (
    MINUTE,
    RUN_LONG_AGO,
    SECOND,
    SICK,
    decide,
    hold_of,
    make_policy,
    make_repair,
    make_sick,
    repairing,
)
from tests.planner.world import (
    T0,
    make_generation,
    make_instance,
    upgrading,
)

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
    assert decide(leaving) == ()
    assert [d.reason for d in decide(replace(leaving, repairs=(make_repair(0),)))] == [
        "the scale set is being deleted"
    ]


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
