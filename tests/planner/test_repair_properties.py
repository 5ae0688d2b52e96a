"""Rules of repairs in generated runs; `repair_rules.check_repairs` looks at each turn."""

import random
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.model.instance import Wanted
from labctl.model.instance_policy import AutomaticRepairsPolicy, RepairAction
from tests.planner.happenings import (
    die,
    fall_ill,
    fall_ill_until,
    kill_controller,
    protect,
    recover,
    resume_repairs,
    scale,
    start_upgrade,
    suspend_repairs,
)
from tests.planner.scenarios import want_if_there
from tests.planner.world import PlanFunction, Script, World, make_set, make_spec, real_plan

ILLNESSES = ("Restart", "Reimage", "Replace", "for good")
EVENTS = ("die", "recover", "stop", "start", "scale", "kill", "protect", "suspend", "resume", "up")


@dataclass(frozen=True, kw_only=True)
class RepairScenario:
    count: int
    action: RepairAction
    grace: int
    illnesses: tuple[tuple[int, int, str], ...]  # second, ordinal, what helps
    events: tuple[tuple[int, str, int], ...]
    stubborn: frozenset[int]  # do not boot a second time
    seed: int


repair_scenarios = st.builds(
    RepairScenario,
    count=st.sampled_from((1, 2, 5, 20, 41)),
    action=st.sampled_from(tuple(RepairAction)),
    grace=st.sampled_from((1, 60, 600)),
    illnesses=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 41), st.sampled_from(ILLNESSES)),
        min_size=1,
        max_size=8,
    ).map(tuple),
    events=st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from(EVENTS), st.integers(0, 41)), max_size=6
    ).map(tuple),
    stubborn=st.frozensets(st.integers(0, 41), max_size=3),
    seed=st.integers(0, 2**16),
)


def make_repair_world(scenario: RepairScenario, plan: PlanFunction = real_plan) -> World:
    policy = AutomaticRepairsPolicy(
        enabled=True,
        repair_action=scenario.action,
        grace_period=timedelta(seconds=scenario.grace),
    )
    spec = make_spec(scenario.count, automatic_repairs_policy=policy)
    script = Script(
        boots=lambda name, version, _: int(name.removeprefix("web_")) not in scenario.stubborn,
        shuffle=random.Random(scenario.seed),
    )
    world = World(scale_set=make_set(scenario.count, spec=spec), script=script, plan=plan)
    for second, ordinal, cure in scenario.illnesses:
        name = f"web_{ordinal % scenario.count}"
        is_final = cure == "for good"
        world.at(
            second,
            f"{name} falls ill: {cure}",
            fall_ill(name) if is_final else fall_ill_until(name, RepairAction(cure)),
        )
    for second, kind, ordinal in scenario.events:
        name = f"web_{ordinal % scenario.count}"
        changes = {
            "die": die(name),
            "recover": recover(name),
            "stop": want_if_there(name, Wanted.STOPPED),
            "start": want_if_there(name, Wanted.RUNNING),
            "scale": scale(max(1, ordinal % (scenario.count + 2))),
            "kill": kill_controller,
            "protect": protect(name, actions=ordinal % 2 == 0),
            "suspend": suspend_repairs,
            "resume": resume_repairs,
            "up": start_if_none,
        }
        world.at(second, f"{kind} {name}", changes[kind])
    return world


def start_if_none(world: World) -> None:
    upgrade = world.scale_set.upgrade
    if upgrade is None or upgrade.code.is_final:
        start_upgrade()(world)


@pytest.mark.timeout(900)  # 500 examples under coverage on a busy host
@given(repair_scenarios)
def test_every_run_of_repairs_keeps_the_rules_and_ends(scenario: RepairScenario):
    check_repairs_have_ended(make_repair_world(scenario).run(turns=8000))


def check_repairs_have_ended(world: World) -> None:
    """Nobody is left unhealthy, unless there is a reason that a person can see."""
    scale_set = world.scale_set
    is_suspended = scale_set.repair_service.is_suspended
    upgrade = scale_set.upgrade
    if is_suspended or (upgrade is not None and not upgrade.code.is_final):
        return
    assert not any(r.is_open for r in scale_set.repairs), "\n".join(world.log[-20:])
    for instance in scale_set.instances:
        is_ill = instance.is_settled and instance.health.state == "Unhealthy"
        if is_ill and instance.wanted is Wanted.RUNNING:
            assert instance.protect_from_scale_in, "\n".join(world.log[-20:])
