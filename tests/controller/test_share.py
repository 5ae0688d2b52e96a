"""Several scale sets in one process stay within the host together."""

from dataclasses import replace

from labctl.controller.share import Share
from labctl.model.plan import AwaitReady, HostCapacity, Plan, Prepare, Start
from tests.planner.world import make_set

ROOM = HostCapacity(boots_at_once=3, free_memory=2**40, overhead_per_instance=0)


def named(name):
    return replace(make_set(1), name=name, capacity=ROOM)


def boots(name, count):
    steps = [Start(instance=f"{name}_{n}", generation=1, reason="") for n in range(count)]
    return Plan(actions=(*steps, Prepare(instance=f"{name}_9", generation=1, reason="")))


def test_a_boot_of_one_scale_set_is_no_room_for_another():
    share = Share()
    with share.planning(named("web")) as view:
        assert view.capacity.boots_at_once == 3
        share.take("web", boots("web", 2))
    with share.planning(named("db")) as view:
        assert view.capacity.boots_at_once == 1
        share.take("db", boots("db", 1))
    with share.planning(named("web")) as view:  # its own boots are counted by the planner
        assert view.capacity.boots_at_once == 2
        waits = Plan(actions=(AwaitReady(instance="web_0", generation=1, reason=""),))
        share.take("web", waits)
    with share.planning(named("mail")) as view:
        assert view.capacity.boots_at_once == 1
    share.drop("web")
    with share.planning(named("mail")) as view:
        assert view.capacity.boots_at_once == 2


def test_memory_of_others_is_told():
    share = Share()
    assert share.promise("web", 100) == 0
    assert share.promise("db", 50) == 100
    assert share.promise("web", 10) == 50
    share.drop("db")
    assert share.promise("web", 10) == 0
