"""Generated scenarios: a set, an upgrade, images that misbehave, people and accidents."""

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from labctl.model.hook import Hook, Hooks
from labctl.model.instance import Wanted
from labctl.model.machine import MachineSize
from labctl.model.plan import ScaleSet
from labctl.model.setup import CustomData, Extension
from labctl.model.upgrade import UpgradePurpose
from labctl.model.upgrade_policy import UpgradeMode
from tests.planner.controls import FREE, Controls, Person, controls, hold_back
from tests.planner.happenings import (
    apply_model,
    cancel,
    die,
    fall_ill,
    kill_controller,
    recover,
    restart,
    scale,
    want,
)
from tests.planner.world import (
    MIB,
    NEW,
    OLD,
    RICH,
    PlanFunction,
    Script,
    World,
    digest,
    make_cluster_managed,
    make_generation,
    make_metrics,
    make_policy,
    make_set,
    make_spec,
    real_plan,
    telling,
    upgrading,
)

FATES = ("well", "well", "well", "slow", "too slow", "never", "no boot", "no extension", "refused")
MODELS: dict[str, dict[str, Any]] = {
    "nothing": {"extensions_time_budget": timedelta(minutes=20)},
    "rerun": {"extensions": (Extension(name="app", script="new"),)},
    "restart": {"size": MachineSize(vcpus=2)},
    "swap": {"custom_data": CustomData(inline="#!/bin/sh")},
}
EVENTS = ("die", "ill", "recover", "restart", "stop", "start", "scale", "cancel", "kill")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    count: int
    batch_percent: int
    unhealthy_percent: int
    upgraded_percent: int
    pause: int
    prioritizes: bool
    restores: bool
    boots_at_once: int
    spare: int  # instances that the host has memory for beyond the most that are wanted
    fates: tuple[str, ...]  # on the new image, by ordinal
    stubborn: tuple[bool, ...]  # does not boot on the old image again, by ordinal
    events: tuple[tuple[int, str, int], ...]
    seed: int
    model: str = "none"  # what the new model needs; "none": the upgrade is for the image alone
    keeps_image: bool = False
    controls: Controls = FREE  # what holds it back
    ahead: tuple[bool, ...] = (False,) * 16  # has the new model before the upgrade, by ordinal
    # By ordinal, (phase, asks to be skipped); empty: binary health, nothing is told.
    wishes: tuple[tuple[int | None, bool], ...] = ()
    places: tuple[int, int, int] = (0, 1, 5)  # zones, fault domains, update domains
    crosses_zones: bool = False
    is_managed: bool = False  # by a cluster
    protected: frozenset[int] = frozenset()  # from scale-in, by ordinal
    goes_back: bool = False  # what failed is restored when a limit is exceeded
    surges: bool = False  # new instances come for the old ones
    hooks: tuple[str, ...] = ()  # "drain", "undrain"; then each try fails at random


WISHES = ((None, False), (0, False), (1, False), (1, False), (7, False), (None, True), (0, True))
PLACES = ((0, 1, 5), (0, 1, 5), (0, 3, 2), (2, 1, 5), (2, 2, 3), (3, 2, 1))

scenarios = st.builds(
    Scenario,
    count=st.integers(1, 12),
    batch_percent=st.sampled_from((5, 20, 34, 50, 100)),
    unhealthy_percent=st.sampled_from((5, 20, 50, 100)),
    upgraded_percent=st.sampled_from((0, 20, 50, 100)),
    pause=st.sampled_from((0, 0, 45)),
    prioritizes=st.booleans(),
    restores=st.booleans(),
    boots_at_once=st.integers(1, 4),
    spare=st.integers(0, 2),
    fates=st.tuples(*[st.sampled_from(FATES)] * 16),
    stubborn=st.tuples(*[st.sampled_from((False, False, False, True))] * 16),
    events=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(EVENTS), st.integers(0, 14)), max_size=8
    ).map(tuple),
    seed=st.integers(0, 2**16),
    wishes=st.one_of(st.just(()), st.tuples(*[st.sampled_from(WISHES)] * 16)),
    places=st.sampled_from(PLACES),
    crosses_zones=st.booleans(),
    is_managed=st.booleans(),
    protected=st.frozensets(st.integers(0, 11), max_size=3),
    goes_back=st.booleans(),
    surges=st.sampled_from((False, False, True)),
    hooks=st.sampled_from(((), (), ("drain",), ("drain", "undrain"))),
)
model_scenarios = st.builds(
    replace,
    scenarios,
    model=st.sampled_from(tuple(MODELS)),
    keeps_image=st.booleans(),
    controls=st.one_of(st.just(FREE), controls),
    ahead=st.tuples(*[st.sampled_from((False, False, True))] * 16),
    events=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from((*EVENTS, "model")), st.integers(0, 14)),
        max_size=8,
    ).map(tuple),
)

# Most instances do well, so that later batches are reached.
held_scenarios = st.builds(
    replace,
    scenarios,
    fates=st.tuples(*[st.sampled_from((*["well"] * 18, *FATES))] * 16),
    events=st.lists(
        st.tuples(st.integers(0, 2000), st.sampled_from(EVENTS), st.integers(0, 14)), max_size=2
    ).map(tuple),
    controls=controls,
)

ready_after = {"well": 4, "slow": 250, "too slow": 400, "never": None}


def ordinal_of(name: str) -> int:
    """By maxSurge there are more ordinals than fates."""
    return int(name.removeprefix("web_")) % 16


def make_world(scenario: Scenario, plan: PlanFunction = real_plan) -> World:
    policy = make_policy(
        max_batch_instance_percent=scenario.batch_percent,
        max_unhealthy_instance_percent=scenario.unhealthy_percent,
        max_unhealthy_upgraded_instance_percent=scenario.upgraded_percent,
        pause_time_between_batches=timedelta(seconds=scenario.pause),
        prioritize_unhealthy_instances=scenario.prioritizes,
        enable_cross_zone_upgrade=scenario.crosses_zones,
        rollback_failed_instances_on_policy_breach=scenario.goes_back,
        max_surge=scenario.surges,
    )
    hooks = Hooks(**{kind: Hook(command=(kind,)) for kind in scenario.hooks})
    policy = policy.model_copy(update={"hooks": hooks})
    chance = random.Random(scenario.seed)
    metrics = {
        f"web_{ordinal}": make_metrics(phase, skips=skips)
        for ordinal, (phase, skips) in enumerate(scenario.wishes)
    }
    zones, faults, updates = scenario.places
    spec = make_spec(
        scenario.count,
        upgrade_policy=policy,
        zones=tuple(map(str, range(zones))),
        fault_domain_count=faults,
        update_domain_count=updates,
        **(make_cluster_managed() if scenario.is_managed else {}),
        **({"health": RICH} if metrics else {}),
    )
    scale_set = telling(make_set(scenario.count, spec=spec), metrics)
    instances = tuple(
        replace(i, protect_from_scale_in=i.ordinal in scenario.protected)
        for i in scale_set.instances
    )
    scale_set = replace(scale_set, instances=instances)
    capacity = replace(scale_set.capacity, boots_at_once=scenario.boots_at_once)
    scale_set = replace(scale_set, capacity=capacity)
    scale_set = hold_back(scale_set, scenario.controls)
    if scenario.model == "none":
        scale_set = upgrading(scale_set, restores=scenario.restores)
    else:
        scale_set = _upgrading_model(scenario, scale_set)

    def fate(name: str, version: str) -> str:
        return scenario.fates[ordinal_of(name)] if version == NEW else "well"

    def boots(name: str, version: str, generation: int) -> bool:
        if version == NEW:
            return fate(name, version) != "no boot"
        return not scenario.stubborn[ordinal_of(name)]

    person = Person(scenario.controls)
    script = Script(
        health=lambda name, version, _: ready_after.get(fate(name, version), 4),
        boots=boots,
        extends=lambda name, version, _: fate(name, version) != "no extension",
        metrics=lambda name: metrics.get(name, ""),
        refuses=lambda name, version, _: fate(name, version) == "refused",
        hooks=lambda name, kind, tries: tries > 2 or chance.random() < 0.8,
        memory=(16 + scenario.spare) * 640 * MIB,
        shuffle=random.Random(scenario.seed),
        new_model=None if scenario.model == "none" else 2,
        hears=person.hear,
    )
    world = World(scale_set=scale_set, script=script, plan=plan)
    person.arrange(world)
    for second, kind, ordinal in scenario.events:
        name = f"web_{ordinal}"
        changes = {
            "die": die(name),
            "ill": fall_ill(name),
            "recover": recover(name),
            "restart": restart(name),
            "stop": want_if_there(name, Wanted.STOPPED),
            "start": want_if_there(name, Wanted.RUNNING),
            "scale": scale(ordinal),
            "cancel": cancel,
            "kill": kill_controller,
            "model": apply_model(UpgradeMode.ROLLING, custom_data=CustomData(inline=f"{second}")),
        }
        world.at(second, f"{kind} {name}", changes[kind])
    return world


def _upgrading_model(scenario: Scenario, scale_set: ScaleSet) -> ScaleSet:
    """Model 2 is newest; some have it, and an upgrade brings it to the others."""
    spec = scale_set.spec.model_copy(update=MODELS[scenario.model])
    generations = [make_generation(model_revision=2 if ahead else 1) for ahead in scenario.ahead]
    changed = replace(
        scale_set,
        spec=spec,
        models=scale_set.models | {2: spec},
        model_revision=2,
        instances=tuple(
            replace(i, generations=(generations[i.ordinal],)) for i in scale_set.instances
        ),
    )
    version = OLD if scenario.keeps_image else NEW
    return upgrading(
        changed,
        restores=scenario.restores,
        purpose=UpgradePurpose.MODEL,
        target_version=version,
        target_digest=digest(version),
    )


def want_if_there(name: str, wanted: Wanted):
    def change(world: World) -> None:
        there = {i.name for i in world.scale_set.instances if i.wanted is not Wanted.DELETED}
        if name in there:
            want(name, wanted)(world)

    return change
