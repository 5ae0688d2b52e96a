"""Boots at once and memory."""

from dataclasses import replace

from labctl.model.instance import DomainFacts, Instance, Power, Wanted
from labctl.model.plan import HostCapacity, Prepare, Stop
from labctl.planner import plan
from tests.planner.world import MIB, T0, make_generation, make_instance, make_set

NEVER = make_generation(started_at=None, ready_at=None, extensions=())
OFF = DomainFacts(generation=1, power=Power.STOPPED, reason="shutdown")
ON = DomainFacts(generation=1, power=Power.RUNNING)


def new(ordinal: int) -> Instance:
    return make_instance(ordinal, generations=(NEVER,), domain=OFF)


def booting(ordinal: int) -> Instance:
    return make_instance(ordinal, generations=(make_generation(ready_at=None),))


def returning(ordinal: int) -> Instance:
    return make_instance(ordinal, domain=OFF)


def restarting(ordinal: int) -> Instance:
    return make_instance(ordinal, restart_asked_at=T0)


def ask(*instances: Instance, boots: int = 2, memory: int = 10**6 * MIB) -> list[str]:
    room = HostCapacity(boots_at_once=boots, free_memory=memory, overhead_per_instance=128 * MIB)
    scale_set = make_set(len(instances), instances=instances, capacity=room)
    answer = plan(scale_set, T0)
    done = [f"{type(a).__name__} {a.instance}" for a in answer.actions]
    return done + [f"{h.subject}: {h.reason}" for h in answer.holds]


FULL = "waiting for its turn: 2 of 2 boots at once are taken"


def test_as_many_boot_at_once_as_the_host_takes():
    assert ask(new(0), new(1), new(2)) == ["Start web_0", "Start web_1", f"web_2: {FULL}"]


def test_those_that_boot_already_count():
    assert ask(booting(0), new(1), new(2)) == ["AwaitReady web_0", "Start web_1", f"web_2: {FULL}"]


def test_a_start_that_was_not_recorded_counts_and_is_never_held_back():
    running = replace(new(2), domain=ON)
    assert ask(booting(0), booting(1), running, new(3)) == [
        "AwaitReady web_0",
        "AwaitReady web_1",
        "Start web_2",
        "web_3: waiting for its turn: 3 of 2 boots at once are taken",
    ]


def test_preparing_and_defining_go_on_while_others_boot():
    unprepared = make_instance(
        2,
        generations=(replace(NEVER, prepared=False),),
        domain=DomainFacts(generation=None, power=Power.STOPPED),
    )
    undefined = make_instance(
        3, generations=(NEVER,), domain=DomainFacts(generation=None, power=Power.STOPPED)
    )
    assert ask(booting(0), booting(1), unprepared, undefined) == [
        "AwaitReady web_0",
        "AwaitReady web_1",
        "Prepare web_2",
        "Define web_3",
    ]


def test_what_was_in_service_returns_before_new_ones_start():
    assert ask(new(0), returning(1), restarting(2)) == [
        "Start web_1",
        "Stop web_2",
        f"web_0: {FULL}",
    ]


def test_nothing_is_stopped_that_could_not_boot_again_at_once():
    assert ask(booting(0), booting(1), restarting(2)) == [
        "AwaitReady web_0",
        "AwaitReady web_1",
        f"web_2: {FULL}",
    ]


def test_one_that_is_being_redefined_keeps_its_room():
    stale = replace(returning(2), domain=replace(OFF, is_stale=True))
    assert ask(new(0), new(1), stale) == ["Start web_0", "Define web_2", f"web_1: {FULL}"]


def test_memory_is_counted_with_the_overhead_of_the_emulator():
    assert ask(new(0), new(1), boots=9, memory=1279 * MIB) == [
        "Start web_0",
        "web_1: waiting for memory: needs 640 MiB, free 639 MiB",
    ]
    assert ask(new(0), new(1), boots=9, memory=1280 * MIB) == ["Start web_0", "Start web_1"]


def test_less_than_no_memory_is_shown_as_none():
    assert ask(new(0), memory=-5 * MIB) == ["web_0: waiting for memory: needs 640 MiB, free 0 MiB"]


def test_a_restart_needs_no_more_memory_than_the_instance_has():
    assert ask(restarting(0), memory=0) == ["Stop web_0"]


def test_stopping_for_good_and_clearing_a_crash_wait_for_nothing():
    stopped = make_instance(0, wanted=Wanted.STOPPED)
    crashed = make_instance(
        1, domain=DomainFacts(generation=1, power=Power.CRASHED, reason="panicked")
    )
    assert ask(stopped, crashed, boots=0, memory=0) == ["Stop web_0", "Stop web_1"]


def test_an_instance_has_one_action_whatever_the_room():
    swapping = make_instance(
        0, generation=2, generations=(make_generation(), replace(NEVER, number=2, prepared=False))
    )
    room = HostCapacity(boots_at_once=0, free_memory=0, overhead_per_instance=0)
    answer = plan(make_set(1, instances=[swapping], capacity=room), T0)
    assert answer.actions == (Prepare(instance="web_0", generation=2, reason="image 1.0.0"),)
    assert not any(isinstance(a, Stop) for a in answer.actions)
