"""Deletion of chosen instances, as rows."""

import pytest

from labctl.controller.desired import NO_CAPACITY, delete_scale_set
from labctl.controller.protection import protect
from labctl.controller.removal import remove_instances
from labctl.errors import NotFoundError, RefusedError
from labctl.model.instance import Wanted
from labctl.model.instance_policy import RepairAction
from labctl.model.plan import CreateInstance
from labctl.model.upgrade import Member, MemberState
from labctl.planner.scale import find_change, plan_scaling
from labctl.store.data_disks import load_data_disks
from labctl.store.events import load_events
from labctl.store.instances import change_instance
from labctl.store.repairs import insert_repair
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import change_member, insert_member
from tests.controller.test_models import apply, decide, start
from tests.controller.test_record import NOW
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture


@pytest.fixture
def web(database):
    """Three instances, wanted and present."""
    apply(database, {"mode": "Manual"}, capacity=3)
    decide(database, *(CreateInstance(ordinal=n, reason="capacity 3") for n in range(3)))
    return database


def remove(database, *names):
    with database.write() as connection:
        return remove_instances(connection, "web", names, now=NOW)


def view(database):
    with database.read() as connection:
        return load_view(connection, "web", capacity=NO_CAPACITY)


def test_exactly_these_go_and_nobody_comes_or_goes_for_them(web):
    assert remove(web, "web_0", "web_0") == ("web_0",)
    after = view(web)
    assert after.spec.capacity == 2
    assert [i.wanted for i in after.instances] == [Wanted.DELETED, Wanted.RUNNING, Wanted.RUNNING]
    assert plan_scaling(after).decisions == ()
    assert find_change(after) == "web_0 being deleted"


def test_to_ask_again_takes_no_more_capacity(web):
    remove(web, "web_0")
    assert remove(web, "web_0") == ()
    assert view(web).spec.capacity == 2


def test_data_disks_stay_in_the_store(web):
    with web.read() as connection:
        before = load_data_disks(connection)
    remove(web, "web_0", "web_1", "web_2")
    with web.read() as connection:
        assert load_data_disks(connection) == before


def test_an_unknown_one_keeps_the_others(web):
    with pytest.raises(NotFoundError, match="web_9"):
        remove(web, "web_0", "web_9")
    assert view(web).spec.capacity == 3


def test_protected_instances_are_not_deleted_and_do_not_keep_others(web):
    with web.write() as connection:
        protect(connection, ["web_1"], scale_in=True, now=NOW)
    with pytest.raises(RefusedError, match="web_1"):
        remove(web, "web_0", "web_1")
    assert remove(web, "web_0", "web_2") == ("web_0", "web_2")
    assert view(web).spec.capacity == 1


def test_the_events_wake_a_daemon(web):
    remove(web, "web_2")
    with web.read() as connection:
        events = load_events(connection, limit=2)
    assert [(e.kind, e.message) for e in events] == [
        ("request", "deletion asked for"),
        ("request", "capacity 3 -> 2"),
    ]


def test_a_pair_of_which_one_comes_for_the_other_is_left_alone(web):
    upgrade = start(web)
    with web.write() as connection:
        insert_member(connection, upgrade.id, Member(instance="web_0", ordinal=0))
        change_member(
            connection,
            upgrade.id,
            "web_0",
            state=MemberState.IN_PROGRESS.value,
            replaced_by="web_2",
        )
    for name in ("web_0", "web_2"):
        with pytest.raises(RefusedError, match="replaced by web_2"):
            remove(web, name)
    assert remove(web, "web_1") == ("web_1",)


def test_one_that_a_repair_replaces_is_left_alone_since_another_comes_for_it(web):
    with web.write() as connection:
        change_instance(connection, "web_0", wanted=Wanted.DELETED.value)
        insert_repair(
            connection,
            scale_set="web",
            instance="web_0",
            ordinal=0,
            action=RepairAction.REPLACE,
            reason="unhealthy for 10 minutes",
            now=NOW,
        )
    with pytest.raises(RefusedError, match="web_0 is being replaced"):
        remove(web, "web_0")
    assert view(web).spec.capacity == 3


def test_a_set_that_is_being_deleted_takes_no_wishes(web):
    with web.write() as connection:
        delete_scale_set(connection, "web", now=NOW)
    with pytest.raises(RefusedError, match="being deleted"):
        remove(web, "web_0")
