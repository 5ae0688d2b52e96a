"""What an upgrade would do."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.machine import MachineSize
from labctl.model.setup import Extension
from labctl.model.upgrade import MemberState, UpgradeCode, UpgradePurpose
from labctl.planner import Preview, PreviewBatch, make_members, preview
from tests.planner.world import (
    NEW,
    OLD,
    RICH,
    T0,
    World,
    digest,
    make_generation,
    make_instance,
    make_metrics,
    make_policy,
    make_set,
    make_spec,
    telling,
    upgrading,
)


def foresee(scale_set, version: str = NEW) -> Preview:
    return preview(scale_set, target_version=version, target_digest=digest(version), now=T0)


def test_it_names_every_batch_with_its_pause():
    policy = make_policy(pause_time_between_batches=timedelta(minutes=2))
    scale_set = make_set(2, spec=make_spec(2, upgrade_policy=policy))
    assert foresee(scale_set) == Preview(
        batches=(
            PreviewBatch(
                number=1,
                instances=("web_0",),
                reason="batch 1 of 2 to 1.1.0: at most 1 of 2 at once",
                after_pause=timedelta(0),
            ),
            PreviewBatch(
                number=2,
                instances=("web_1",),
                reason="batch 2 of 2 to 1.1.0: at most 1 of 2 at once",
                after_pause=timedelta(minutes=2),
            ),
        ),
        ending="Completed: no instance is left to upgrade",
    )


def test_it_says_who_is_not_affected():
    instances = [
        make_instance(0, generations=(make_generation(version=NEW),)),
        make_instance(1, wanted=Wanted.STOPPED),
        make_instance(2),
    ]
    found = foresee(make_set(3, instances=instances))
    assert found.skipped == (("web_0", "runs 1.1.0 already"), ("web_1", "stopped by its user"))
    assert [b.instances for b in found.batches] == [("web_2",)]


def test_it_says_why_an_upgrade_would_not_start():
    found = foresee(make_set(3), OLD)
    assert found.refusal is not None
    assert found.batches == ()


def test_it_ends_with_what_it_would_wait_for_without_end():
    """Specs with such extensions are refused; the preview must end all the same."""
    scale_set = make_set(1)
    ghost = Extension(name="app", script="true", provision_after_extensions=("ghost",))
    spec = scale_set.spec.model_copy(update={"extensions": (ghost,)})
    found = foresee(
        replace(scale_set, spec=spec, models={1: scale_set.spec, 2: spec}, model_revision=2)
    )
    assert [b.instances for b in found.batches] == [("web_0",)]
    assert found.ending == ""
    assert [h.subject for h in found.stuck] == ["web_0"]


def test_it_foresees_the_batches_that_then_happen():
    for count in (1, 5, 6, 20, 33):
        scale_set = make_set(count)
        foreseen = [batch.instances for batch in foresee(scale_set).batches]
        world = World(scale_set=upgrading(scale_set)).run()
        assert world.batches == foreseen
        upgrade = world.scale_set.upgrade
        assert upgrade is not None
        assert upgrade.code is UpgradeCode.COMPLETED
        assert {m.state for m in upgrade.members} == {MemberState.SUCCEEDED}


@pytest.mark.parametrize(
    "change", [{"size": MachineSize(vcpus=2)}, {"extensions_time_budget": timedelta(minutes=20)}]
)
def test_it_foresees_an_upgrade_to_a_model_on_the_same_image(change):
    """With restarts, and with nothing to do but to record it."""
    scale_set = make_set(6)
    spec = scale_set.spec.model_copy(update=change)
    changed = replace(scale_set, spec=spec, models=scale_set.models | {2: spec}, model_revision=2)
    found = foresee(changed, OLD)
    assert [b.instances for b in found.batches] == [(f"web_{n}",) for n in range(6)]
    assert found.batches[0].reason == "batch 1 of 6 to 1.0.0 with model 2: at most 1 of 6 at once"
    goal = {"target_version": OLD, "target_digest": digest(OLD), "purpose": UpgradePurpose.MODEL}
    world = World(scale_set=upgrading(changed, restores=False, **goal)).run()
    assert world.batches == [b.instances for b in found.batches]
    assert {i.generation for i in world.scale_set.instances} == {1}


def test_a_thousand_instances_are_foreseen_in_no_time():
    assert [len(b.instances) for b in foresee(make_set(1000)).batches] == [200] * 5


WISHES = {
    "web_0": make_metrics(1),
    "web_1": make_metrics(0),
    "web_2": make_metrics(0, skips=True),
}


def test_it_shows_phases_and_who_asked_to_be_skipped():
    found = foresee(telling(make_set(4, spec=make_spec(4, health=RICH)), WISHES))
    assert [(b.phase, b.instances, b.reason) for b in found.batches] == [
        (0, ("web_1",), "batch 1 of 3 to 1.1.0, phase 0: at most 1 of 4 at once"),
        (1, ("web_0",), "batch 2 of 3 to 1.1.0, phase 1: at most 1 of 4 at once"),
        (None, ("web_3",), "batch 3 of 3 to 1.1.0, last phase: at most 1 of 4 at once"),
    ]
    assert found.skipped == (("web_2", "its application asked for it (SkipUpgrade)"),)


def test_custom_metrics_of_binary_health_or_of_none_are_not_read():
    for spec in (
        make_spec(3),
        make_spec(3, health=make_spec(1).health.model_copy(update={"application_health": None})),
    ):
        members = make_members(telling(make_set(3, spec=spec), WISHES))
        assert {(m.phase, m.skips_upgrade) for m in members} == {(None, False)}


def test_only_a_healthy_instance_has_a_place_in_the_order_but_any_may_ask_to_be_skipped():
    scale_set = telling(make_set(3, spec=make_spec(3, health=RICH)), WISHES)
    for state in (HealthState.UNHEALTHY, HealthState.UNKNOWN, HealthState.INITIALIZING):
        ill = tuple(replace(i, health=replace(i.health, state=state)) for i in scale_set.instances)
        members = make_members(replace(scale_set, instances=ill))
        assert [(m.phase, m.skips_upgrade) for m in members] == [
            (None, False),
            (None, False),
            (None, True),
        ]


def test_a_verdict_from_before_the_power_on_gives_no_place_in_the_order():
    stale = Health(
        state=HealthState.HEALTHY, since=T0 - timedelta(days=1), custom_metrics=make_metrics(3)
    )
    instances = [make_instance(0, health=stale)]
    spec = make_spec(1, health=RICH)
    assert make_members(make_set(1, spec=spec, instances=instances))[0].phase is None
