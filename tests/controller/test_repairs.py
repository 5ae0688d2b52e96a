"""Protection, reimage and automatic repairs in the store, and what commands wait for."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from labctl.controller.desired import apply_spec, reimage, scale
from labctl.controller.goal import converged, instances_as_wanted
from labctl.controller.protection import protect
from labctl.controller.repair_service import resume, suspend
from labctl.errors import RefusedError
from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from labctl.model.plan import (
    BeginBatch,
    BeginRepair,
    EndRepair,
    Plan,
    RemoveInstance,
    SuspendRepairs,
)
from labctl.model.repair import RepairOutcome, RepairService, ServiceState
from labctl.planner import foresight
from labctl.planner import plan as make_plan
from labctl.store.events import load_events
from labctl.store.instances import change_generation
from labctl.store.repairs import load_repairs
from labctl.store.scale_sets import remove_scale_set
from tests.controller.test_record import NOW, decide, spec, start_upgrade, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture
from tests.controller.test_record import web as web  # noqa: PLC0414 - a fixture
from tests.planner.world import T0, make_instance, make_set, make_spec

HEALTH = {"applicationHealth": {"protocol": "http", "port": 8080, "requestPath": "/health"}}
LATER = NOW + timedelta(minutes=1)


def repairs(**values):
    return {"enabled": True, "repairAction": "Restart"} | values


def change(database, function, *arguments, **options):
    with database.write() as connection:
        return function(connection, *arguments, now=LATER, **options)


def begin(name="web_0", action=RepairAction.RESTART):
    return BeginRepair(instance=name, action=action, reason="HTTP 503")


# --- protection -----------------------------------------------------------------------------------


def test_protection_is_kept_and_taken_away(web):
    assert change(web, protect, ["web_0", "web_1"], scale_in=True) == ["web_0", "web_1"]
    assert change(web, protect, ["web_1"], actions=True) == ["web_1"]
    assert change(web, protect, ["web_1"], actions=True) == []
    assert [
        (i.protect_from_scale_in, i.protect_from_scale_set_actions) for i in view(web).instances
    ] == [
        (True, False),
        (True, True),
    ]
    assert change(web, protect, ["web_1"], scale_in=False, actions=False) == ["web_1"]
    assert not view(web).instances[1].is_protected
    with web.read() as connection:
        messages = [event.message for event in load_events(connection, instance="web_1")]
    assert messages[-3:] == [
        "protected from scale-in",
        "protected from scale-in, scale set actions",
        "protected from nothing any more",
    ]


@pytest.mark.parametrize("wish", [{"actions": True}, {"scale_in": False}])
def test_scale_set_actions_alone_are_refused_before_anything_changes(web, wish):
    change(web, protect, ["web_1"], scale_in=True)
    change(web, protect, ["web_1"], actions=True)
    names = ["web_0", "web_1"]
    with pytest.raises(RefusedError, match="needs protection from scale-in"):
        change(web, protect, names, **wish)
    assert [i.is_protected for i in view(web).instances] == [False, True]


def test_a_capacity_below_the_protected_ones_is_refused_with_names(web):
    change(web, protect, ["web_0", "web_1"], scale_in=True)
    with pytest.raises(RefusedError) as told:
        change(web, scale, "web", 1)
    assert told.value.detail == "protected: web_0, web_1"
    with pytest.raises(RefusedError, match="cannot be 1"):
        change(web, apply_spec, spec(capacity=1))
    assert view(web).spec.capacity == 2
    change(web, protect, ["web_1"], scale_in=False)
    assert change(web, scale, "web", 1)


def test_one_that_leaves_cannot_be_protected_any_more(web):
    decide(web, RemoveInstance(instance="web_1", reason="capacity 1"))
    with pytest.raises(RefusedError, match="is being deleted"):
        change(web, protect, ["web_1"], scale_in=True)


# --- reimage --------------------------------------------------------------------------------------


def test_a_reimage_by_hand_keeps_image_and_model(web):
    change(web, apply_spec, spec(customData={"inline": "#!/bin/sh\n"}))
    change(web, reimage, ["web_0"])
    first, second = view(web).instances
    assert (first.generation, first.current.image_version, first.current.model_revision) == (
        2,
        "1.0.0",
        1,
    )
    assert second.generation == 1


def test_a_reimage_starts_what_was_stopped(web):
    with web.write() as connection:
        connection.execute(text("UPDATE instance SET wanted = 'Stopped'"))
    change(web, reimage, ["web_0"])
    assert [i.wanted for i in view(web).instances] == [Wanted.RUNNING, Wanted.STOPPED]


def test_a_reimage_in_the_middle_of_an_upgrade_is_refused(web):
    upgrade_id = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="1"))
    with pytest.raises(RefusedError, match="is replacing the OS disk of web_0"):
        change(web, reimage, ["web_0"])
    change(web, reimage, ["web_1"])
    assert view(web).instances[1].generation == 2


# --- repairs --------------------------------------------------------------------------------------


def essence(scale_set):
    return (
        [
            (i.name, i.wanted, i.generation, i.restart_asked_at, len(i.generations))
            for i in scale_set.instances
        ],
        scale_set.repairs,
        scale_set.repair_service,
    )


def test_the_store_does_with_repairs_what_the_planner_foresees(web):
    with web.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, started_at=NOW, ready_at=NOW, prepared=True)

    def end(number, name, outcome):
        return EndRepair(repair=number, instance=name, outcome=outcome, reason="r")

    for minutes, decision in enumerate(
        (
            begin("web_0"),
            end(1, "web_0", RepairOutcome.FAILED),
            begin("web_0", RepairAction.REIMAGE),
            end(2, "web_0", RepairOutcome.HEALTHY),
            begin("web_1", RepairAction.REPLACE),
            SuspendRepairs(reason="enough"),
        ),
        start=1,
    ):
        later = NOW + timedelta(minutes=minutes)
        foreseen = foresight.record(view(web), decision, later)
        decide(web, decision, now=later)
        assert essence(view(web)) == essence(foreseen), decision


def test_every_repair_leaves_events_and_history(web):
    decide(web, begin())
    decide(
        web,
        EndRepair(repair=1, instance="web_0", outcome=RepairOutcome.FAILED, reason="HTTP 503"),
        SuspendRepairs(reason="enough"),
        now=LATER,
    )
    with web.read() as connection:
        told = [(e.subject, e.kind.value, e.message) for e in load_events(connection)][-3:]
        (kept,) = load_repairs(connection, "web")
    assert told == [
        ("web_0", "decision", "repair 1: HTTP 503"),
        ("web_0", "failure", "repair 1 failed: HTTP 503"),
        (
            "web",
            "warning",
            "automatic repairs suspended: enough; to go on: labctl repairs resume web",
        ),
    ]
    assert (kept.began_at, kept.ended_at, kept.outcome) == (NOW, LATER, RepairOutcome.FAILED)


def test_history_outlives_the_scale_set_and_does_not_count_for_another_of_its_name(web):
    decide(web, begin())
    with web.write() as connection:
        remove_scale_set(connection, "web")
        apply_spec(connection, spec(), now=LATER)
    assert view(web).repairs == ()
    with web.read() as connection:
        assert [r.instance for r in load_repairs(connection, "web")] == ["web_0"]


def test_suspending_and_resuming(web):
    change(web, apply_spec, spec(health=HEALTH, automaticRepairsPolicy=repairs()))
    assert change(web, suspend, "web", reason="a bad day")
    assert not change(web, suspend, "web", reason="again")
    service = view(web).repair_service
    assert service == RepairService(suspended_at=LATER, suspended_reason="a bad day")
    assert service.state(is_enabled=True) is ServiceState.SUSPENDED
    assert change(web, resume, "web")
    assert not change(web, resume, "web")
    service = view(web).repair_service
    assert service == RepairService(resumed_at=LATER)
    assert service.state(is_enabled=True) is ServiceState.RUNNING
    assert service.state(is_enabled=False) is ServiceState.NOT_RUNNING


def test_what_is_not_enabled_cannot_be_suspended(web):
    for function, options in ((suspend, {"reason": "x"}), (resume, {})):
        with pytest.raises(RefusedError, match="are not enabled"):
            change(web, function, "web", **options)


def test_the_action_changes_only_while_repairs_are_off(web):
    change(web, apply_spec, spec(health=HEALTH, automaticRepairsPolicy=repairs()))
    other = spec(health=HEALTH, automaticRepairsPolicy=repairs(repairAction="Reimage"))
    with pytest.raises(RefusedError, match="cannot change while repairs are enabled"):
        change(web, apply_spec, other)
    off = spec(health=HEALTH, automaticRepairsPolicy=repairs(enabled=False))
    applied = change(web, apply_spec, off)
    assert applied.changes == ("automaticRepairsPolicy changed; it holds at once",)
    change(web, apply_spec, other)
    assert view(web).spec.automatic_repairs_policy.repair_action is RepairAction.REIMAGE


# --- what commands wait for -----------------------------------------------------------------------

SICK = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503 from /health")


def sick_set(**values):
    policy = AutomaticRepairsPolicy(enabled=True, **values)
    made = make_spec(2, automatic_repairs_policy=policy)
    return make_set(2, spec=made, instances=[make_instance(0, health=SICK), make_instance(1)])


def test_apply_waits_for_what_is_in_repair_and_for_nothing_else():
    scale_set = sick_set()
    given_up = converged(scale_set, Plan(), T0)
    assert given_up is not None
    assert not given_up.succeeded
    begun = foresight.record(scale_set, begin(), T0)
    assert converged(begun, Plan(), T0) is None
    suspended = replace(begun, repair_service=RepairService(suspended_at=T0))
    assert not converged(suspended, Plan(), T0).succeeded


def test_apply_on_a_converged_set_with_repairs_ends():
    healthy = make_set(2, spec=sick_set().spec)
    assert make_plan(healthy, T0).is_idle
    assert converged(healthy, make_plan(healthy, T0), T0).succeeded


def test_a_command_for_one_instance_does_not_leave_another_switched_off_in_its_repair():
    begun = foresight.record(sick_set(), begin(), T0)
    goal = instances_as_wanted(frozenset({"web_1"}))
    answer = make_plan(begun, T0)
    assert [a.instance for a in answer.actions] == ["web_0"]
    assert goal(begun, answer, T0) is None
    assert goal(begun, Plan(), T0).succeeded
