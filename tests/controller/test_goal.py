"""When the change of a model counts as made."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.controller.goal import instances_as_wanted, model_applied
from labctl.model.instance import DomainFacts, Health, HealthState, Power
from labctl.model.plan import CreateInstance, Hold, Plan, Rollout
from labctl.model.upgrade import UpgradeCode
from tests.controller.test_models import apply, decide, end, script, start
from tests.controller.test_record import NOW, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture

LATER = NOW + timedelta(seconds=30)


@pytest.fixture
def web(database):
    """Two instances as rows."""
    apply(database, {"mode": "Manual"})
    decide(database, *(CreateInstance(ordinal=n, reason="capacity 2") for n in (0, 1)))
    return database


def seen(database, *healthy):
    """A look that shows the named ones well, and the others off although they should run."""
    instances = tuple(
        replace(
            each,
            domain=DomainFacts(
                generation=each.generation,
                power=Power.RUNNING if each.name in healthy else Power.STOPPED,
            ),
            generations=tuple(
                replace(g, prepared=True, started_at=NOW, ready_at=NOW) for g in each.generations
            ),
            health=Health(state=HealthState.HEALTHY, since=NOW),
        )
        for each in view(database).instances
    )
    return replace(view(database), instances=instances)


def judge(scale_set, *, newest=None, since=NOW, revision=None, plan=None):
    goal = model_applied(lambda: newest, after=0, since=since, revision=revision)
    outcome = goal(scale_set, plan or Plan(), LATER)
    return None if outcome is None else outcome.succeeded


def test_new_instances_are_waited_for(web):
    assert judge(seen(web, "web_0")) is None
    assert judge(seen(web, "web_0", "web_1")) is True


def test_instances_from_before_may_ail(web):
    assert judge(seen(web), since=NOW + timedelta(seconds=1)) is True


def test_those_that_have_the_new_model_are_waited_for(web):
    apply(web, {"mode": "Manual"}, **script("#!/bin/sh\nnew"))
    after = NOW + timedelta(seconds=1)
    assert judge(seen(web), since=after, revision=2) is True  # nobody has it
    assert judge(seen(web), since=after, revision=1) is None


def test_the_capacity_must_be_there(web):
    apply(web, {"mode": "Manual"}, capacity=3)
    assert judge(seen(web, "web_0", "web_1")) is None
    apply(web, {"mode": "Manual"}, capacity=1)
    assert judge(seen(web, "web_0", "web_1")) is None


def test_a_restart_that_is_put_off_is_waited_for(web):
    scale_set = seen(web, "web_0", "web_1")
    asked = tuple(replace(each, restart_asked_at=LATER) for each in scale_set.instances)
    goal = instances_as_wanted(frozenset({"web_0"}))
    hold = Hold(subject="web_0", reason="Stop failed, tried again in 4 s", until=LATER)
    assert goal(replace(scale_set, instances=asked), Plan(holds=(hold,)), LATER) is None
    assert goal(scale_set, Plan(), LATER).succeeded


def test_a_rollout_is_waited_for_and_its_failure_is_told(web):
    apply(web, **script("#!/bin/sh\nnew"))
    well = seen(web, "web_0", "web_1")
    assert well.rollout == Rollout(asked_at=NOW)
    assert judge(well) is None
    upgrade = start(web)
    assert judge(seen(web, "web_0", "web_1"), newest=upgrade) is None
    end(web, UpgradeCode.CANCELLED)
    over = replace(upgrade, code=UpgradeCode.CANCELLED)
    assert judge(seen(web, "web_0", "web_1"), newest=over) is False
    done = replace(upgrade, code=UpgradeCode.COMPLETED)
    assert judge(seen(web, "web_0", "web_1"), newest=done) is True


def test_a_set_that_goes_meanwhile_fails_it(web):
    assert judge(None) is False
    assert judge(replace(seen(web), is_deleting=True)) is False
