"""The next step of one instance."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import (
    NO_DOMAIN,
    DomainFacts,
    Failure,
    Health,
    HealthState,
    Instance,
    Power,
    Rung,
    Wanted,
)
from labctl.model.plan import (
    AwaitReady,
    Define,
    DeleteInstance,
    DiscardGeneration,
    Hold,
    Prepare,
    RerunCustomData,
    RunExtension,
    Start,
    Stop,
)
from labctl.model.setup import Extension
from labctl.model.upgrade import MemberState
from labctl.planner import plan
from labctl.planner.instance import find_next_step
from labctl.planner.situation import survey
from tests.planner.world import (
    NEW,
    T0,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

HOUR = timedelta(hours=1)
FAILED = Failure(rung=Rung.SSH, message="no banner within 300 s", at=T0)
NEVER = make_generation(started_at=None, ready_at=None, extensions=())


def next_step(instance: Instance, **spec):
    return find_next_step(survey(make_set(1, spec=make_spec(1, **spec), instances=[instance]))[0])


def off(generation: int | None = 1, **facts) -> DomainFacts:
    return DomainFacts(generation=generation, power=Power.STOPPED, **facts)


def on(power: Power = Power.RUNNING, **facts) -> DomainFacts:
    return DomainFacts(generation=1, power=power, **facts)


def test_nothing_is_left_to_do_on_a_healthy_instance():
    assert next_step(make_instance(0)) is None


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (
            {"domain": DomainFacts(generation=None, power=Power.UNKNOWN), "wanted": Wanted.DELETED},
            Hold(subject="web_0", reason="the hypervisor does not answer"),
        ),
        (
            {"wanted": Wanted.DELETED},
            DeleteInstance(instance="web_0", reason="it is to be deleted; data disks are kept"),
        ),
        ({"wanted": Wanted.STOPPED}, Stop(instance="web_0", reason="its user stopped it")),
        ({"wanted": Wanted.STOPPED, "domain": off()}, None),
        (
            {"generations": (replace(NEVER, prepared=False),), "domain": NO_DOMAIN},
            Prepare(instance="web_0", generation=1, reason="image 1.0.0"),
        ),
        (
            {"generations": (NEVER,), "domain": NO_DOMAIN},
            Define(instance="web_0", generation=1, reason="image 1.0.0"),
        ),
        (
            {"generations": (NEVER,), "domain": off()},
            Start(instance="web_0", generation=1, reason="image 1.0.0"),
        ),
        (
            {"domain": off(reason="crashed")},
            Start(
                instance="web_0",
                generation=1,
                reason="found off (crashed), though it should run",
            ),
        ),
        (
            {"domain": off(), "restart_asked_at": T0},
            Start(instance="web_0", generation=1, reason="its user asked for a restart"),
        ),
        (
            {"domain": off(is_stale=True)},
            Define(instance="web_0", generation=1, reason="its model has changed"),
        ),
        ({"domain": on(is_stale=True)}, None),
        (
            {"domain": on(Power.CRASHED, reason="panicked")},
            Stop(instance="web_0", reason="crashed (panicked); off, then on again"),
        ),
        (
            {"domain": on(Power.PAUSED)},
            Hold(
                subject="web_0",
                reason="paused by the hypervisor (no reason given); look for a full disk on the "
                "host, then: labctl instance restart web_0",
            ),
        ),
        (
            {"domain": on(Power.PAUSED), "restart_asked_at": T0},
            Stop(instance="web_0", reason="its user asked for a restart"),
        ),
        (
            {"restart_asked_at": T0},
            Stop(instance="web_0", reason="its user asked for a restart"),
        ),
        ({"restart_asked_at": T0 - 2 * HOUR}, None),
        (
            {"generations": (NEVER,)},
            Start(instance="web_0", generation=1, reason="runs, but its start is not recorded"),
        ),
        (
            {"generations": (NEVER,), "restart_asked_at": T0},
            Stop(instance="web_0", reason="its user asked for a restart"),
        ),
        (
            {"generations": (make_generation(ready_at=None),)},
            AwaitReady(instance="web_0", generation=1, reason="image 1.0.0"),
        ),
        (
            {"generations": (make_generation(ready_at=T0 - 2 * HOUR),)},
            AwaitReady(instance="web_0", generation=1, reason="image 1.0.0"),
        ),
        (
            {"rerun_custom_data_asked_at": T0},
            RerunCustomData(instance="web_0", generation=1, reason="its user asked for it"),
        ),
        (
            {"generations": (make_generation(extensions=()),)},
            RunExtension(instance="web_0", generation=1, extension="app", reason="new OS disk 1"),
        ),
        (
            {"health": Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")},
            Hold(subject="web_0", reason="waiting for health: HTTP 503"),
        ),
        (
            {"generations": (make_generation(failure=FAILED),)},
            Hold(
                subject="web_0",
                reason="failed at ssh: no banner within 300 s; to try again: "
                "labctl instance restart web_0, or labctl apply",
            ),
        ),
        (
            {"generations": (make_generation(failure=FAILED),), "domain": off()},
            Hold(
                subject="web_0",
                reason="failed at ssh: no banner within 300 s; to try again: "
                "labctl instance restart web_0, or labctl apply",
            ),
        ),
        (
            {
                "generations": (make_generation(failure=FAILED),),
                "restart_asked_at": T0 + HOUR,
            },
            Stop(instance="web_0", reason="its user asked for a restart"),
        ),
    ],
)
def test_the_most_urgent_step_comes_first(change, step):
    assert next_step(make_instance(0, **change)) == step


def test_the_new_disk_is_prepared_while_the_old_one_serves():
    swap = make_instance(
        0, generation=2, generations=(make_generation(), replace(NEVER, number=2, prepared=False))
    )
    assert next_step(swap) == Prepare(instance="web_0", generation=2, reason="image 1.0.0")
    prepared = replace(swap, generations=(make_generation(), replace(NEVER, number=2)))
    assert next_step(prepared) == Stop(instance="web_0", reason="image 1.0.0")
    stopped = replace(prepared, domain=off())
    assert next_step(stopped) == Define(instance="web_0", generation=2, reason="image 1.0.0")


def test_extensions_run_in_the_order_of_their_dependencies():
    extensions = (
        Extension(name="last", script="true", provision_after_extensions=("app", "base")),
        Extension(name="app", script="true", provision_after_extensions=("base",)),
        Extension(name="base", script="true"),
    )
    order = []
    done: tuple = ()
    for _ in extensions:
        instance = make_instance(0, generations=(make_generation(extensions=done),))
        step = next_step(instance, extensions=extensions)
        order.append((step.extension, step.reason))
        done = (*done, replace(make_generation().extensions[0], name=step.extension))
    assert order == [("base", "new OS disk 1"), ("app", "after base"), ("last", "after app, base")]


def test_old_disks_go_one_at_a_time_when_the_current_one_is_healthy():
    generations = (make_generation(1), make_generation(2), make_generation(3))
    instance = make_instance(
        0, generation=3, generations=generations, domain=replace(on(), generation=3)
    )
    assert next_step(instance) == DiscardGeneration(
        instance="web_0", generation=1, reason="OS disk 3 is healthy"
    )
    ill = replace(instance, health=Health(state=HealthState.UNHEALTHY, since=T0))
    assert isinstance(next_step(ill), Hold)
    unproven = replace(instance, health=Health(state=HealthState.INITIALIZING, since=T0))
    assert isinstance(next_step(unproven), Hold)


def test_a_disk_that_was_rolled_back_from_stays_until_its_evidence_is_saved():
    generations = (make_generation(1), make_generation(2, version=NEW))
    instance = make_instance(0, generations=generations)
    assert next_step(instance) is None
    saved = (generations[0], replace(generations[1], evidence_at=T0))
    assert next_step(replace(instance, generations=saved)) == DiscardGeneration(
        instance="web_0", generation=2, reason="its evidence is saved and OS disk 1 is healthy"
    )


def test_the_way_back_of_a_moving_member_stays_while_the_upgrade_cannot_judge():
    """Another instance's power is unknown, so the upgrade waits; the old disk must wait too."""
    new = make_generation(2, version=NEW)
    swapped = make_instance(
        0,
        generation=2,
        generations=(make_generation(), new),
        domain=replace(on(), generation=2),
    )
    lost = make_instance(1, domain=DomainFacts(generation=None, power=Power.UNKNOWN))
    running = upgrading(make_set(2, instances=[swapped, lost]))
    members = (
        replace(
            running.upgrade.members[0],
            state=MemberState.IN_PROGRESS,
            batch=1,
            from_generation=1,
            to_generation=2,
        ),
        running.upgrade.members[1],
    )
    running = replace(running, upgrade=replace(running.upgrade, members=members, batches=1))
    answer = plan(running, T0)
    assert answer.actions == ()
    assert answer.decisions == ()
    assert [h.reason for h in answer.holds] == [
        "upgrade 7 waits: the hypervisor does not answer",
        "the hypervisor does not answer",
    ]


def test_the_os_disk_in_use_stays_though_its_evidence_was_saved():
    """It failed in an upgrade that restores nothing, and its user has mended it since."""
    mended = make_generation(evidence_at=T0)
    assert next_step(make_instance(0, generations=(mended,))) is None
