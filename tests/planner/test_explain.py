"""`labctl why`."""

from dataclasses import replace

from labctl.model.instance import NO_DOMAIN, DomainFacts, Health, HealthState, Power, Wanted
from labctl.model.instance_policy import AutomaticRepairsPolicy
from labctl.model.plan import Plan
from labctl.planner import explain, find_upgrade_steps, plan
from labctl.planner.foresight import record
from tests.planner.happenings import cancel
from tests.planner.world import (
    T0,
    World,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")


def why(scale_set, name: str) -> tuple[str, ...]:
    instance = next(i for i in scale_set.instances if i.name == name)
    return explain(scale_set, instance, T0)


def test_a_healthy_instance_has_nothing_next():
    assert why(make_set(1), "web_0") == (
        "wanted: Running on OS disk 1 (image 1.0.0)",
        "found: Running (booted) on OS disk 1",
        "health: Healthy: Healthy",
        "next: nothing",
    )


def test_the_place_is_told_where_places_matter():
    scale_set = make_set(2, spec=make_spec(2, zones=("a", "b"), fault_domain_count=2))
    assert why(scale_set, "web_1")[3] == "placed: zone b, fault domain 0, update domain 0"


def test_the_part_in_an_upgrade_is_told():
    lines = why(upgrading(make_set(2)), "web_0")
    assert lines[3:] == (
        "upgrade 7 to 1.1.0 (RollingForward): Pending",
        "next: BeginBatch: batch 1 of 2 to 1.1.0: at most 1 of 2 at once",
    )


def test_an_instance_that_is_not_meant_by_the_next_decision_waits_for_it():
    lines = why(upgrading(make_set(2)), "web_1")
    assert lines[-1] == (
        "next: something else first: batch 1 of 2 to 1.1.0: at most 1 of 2 at once"
    )


def test_the_batch_and_the_message_of_a_member_are_told():
    scale_set = upgrading(make_set(2))
    members = (
        replace(scale_set.upgrade.members[0], batch=3, message="not healthy"),
        scale_set.upgrade.members[1],
    )
    scale_set = replace(scale_set, upgrade=replace(scale_set.upgrade, members=members))
    assert why(scale_set, "web_0")[3] == (
        "upgrade 7 to 1.1.0 (RollingForward): Pending in batch 3: not healthy"
    )


def test_an_instance_that_takes_no_part_in_the_upgrade_says_nothing_of_it():
    scale_set = upgrading(make_set(2))
    upgrade = replace(scale_set.upgrade, members=scale_set.upgrade.members[:1])
    assert len(why(replace(scale_set, upgrade=upgrade), "web_1")) == 4


def test_actions_and_holds_are_told():
    instances = [
        make_instance(0, domain=DomainFacts(generation=1, power=Power.STOPPED)),
        make_instance(1, health=ILL),
        make_instance(2, domain=NO_DOMAIN, generations=(make_generation(started_at=None),)),
        make_instance(3, domain=replace(make_instance(3).domain, is_stale=True)),
    ]
    scale_set = make_set(4, instances=instances)
    assert why(scale_set, "web_0")[-1] == (
        "next: Start: found off (no reason given), though it should run"
    )
    assert why(scale_set, "web_1")[-1] == "next: nothing yet: waiting for health: HTTP 503"
    assert why(scale_set, "web_2")[1] == "found: Stopped, no domain is defined"
    assert why(scale_set, "web_3")[1] == (
        "found: Running (booted) on OS disk 1; its definition is older than its model"
    )


def test_what_the_scale_set_waits_for_is_told_when_the_instance_has_nothing_itself():
    leaving = make_instance(1, wanted=Wanted.DELETED)
    scale_set = make_set(2, instances=[make_instance(0), leaving])
    assert why(scale_set, "web_0")[-1] == (
        "next: nothing; the scale set: web_1 is created again when its deletion is through"
    )


def test_decisions_about_the_whole_name_no_instance():
    world = World(scale_set=upgrading(make_set(2)))
    cancel(world)
    assert why(world.scale_set, "web_0")[-1] == (
        "next: something else first: cancelled, 2 not upgraded"
    )
    removing = make_set(1, instances=[make_instance(0), make_instance(1)])
    assert why(removing, "web_1")[-1] == "next: RemoveInstance: capacity is 1, present are 2"


def test_protection_is_told():
    half = make_instance(0, protect_from_scale_in=True)
    full = make_instance(1, protect_from_scale_in=True, protect_from_scale_set_actions=True)
    scale_set = make_set(2, instances=[half, full])
    assert why(scale_set, "web_0")[3] == "protected: from scale-in"
    assert why(scale_set, "web_1")[3] == "protected: from scale-in and from scale set actions"


def test_a_repair_is_told():
    spec = make_spec(1, automatic_repairs_policy=AutomaticRepairsPolicy(enabled=True))
    sick = make_set(1, spec=spec, instances=[make_instance(0, health=ILL)])
    assert why(sick, "web_0")[-1] == "next: BeginRepair: Replace, try 1 of 3; unhealthy: HTTP 503"
    begun = record(sick, plan(sick, T0).decisions[0], T0)
    assert why(begun, "web_0")[3] == (
        "repair 1 (Replace): Replace, try 1 of 3; unhealthy: HTTP 503"
    )


def test_what_an_upgrade_waits_for_are_its_own_holds_and_the_steps_of_its_batch():
    scale_set = upgrading(make_set(3))
    assert find_upgrade_steps(make_set(3), T0) == Plan()
    assert find_upgrade_steps(scale_set, T0) == Plan()  # it decides at once
    for decision in plan(scale_set, T0).decisions:
        scale_set = record(scale_set, decision, T0)
    steps = find_upgrade_steps(scale_set, T0)
    assert [type(action).__name__ for action in steps.actions] == ["Prepare"]
    ill = replace(scale_set.instances[2], health=ILL)  # of no batch yet
    beside = replace(scale_set, instances=(*scale_set.instances[:2], ill))
    assert plan(beside, T0).holds
    assert find_upgrade_steps(beside, T0) == steps
    paused = upgrading(make_set(3), paused_at=T0)
    assert find_upgrade_steps(paused, T0).holds == plan(paused, T0).holds
