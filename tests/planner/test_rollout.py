"""When instances get a changed model by themselves."""

import pytest

from labctl.model.instance import DomainFacts, Power, Wanted
from labctl.model.plan import Hold, RenewInstances, Rollout, StartUpgrade
from labctl.model.upgrade import UpgradeCode
from labctl.model.upgrade_policy import UpgradeMode, UpgradePolicy
from labctl.planner import has_latest_model, plan
from labctl.planner.rollout import find_outdated
from tests.planner.world import (
    NEW,
    OLD,
    T0,
    digest,
    make_generation,
    make_instance,
    make_set,
    make_spec,
    upgrading,
)

ASKED = Rollout(asked_at=T0)
MOVED = Rollout(asked_at=T0, image_version=NEW, image_digest=digest(NEW))


def changed_set(mode: UpgradeMode, rollout: Rollout | None = ASKED, instances=None, **changes):
    spec = make_spec(3, upgrade_policy=UpgradePolicy(mode=mode))
    return make_set(
        3,
        spec=spec,
        instances=instances,
        models={1: spec, 2: spec},
        model_revision=2,
        rollout=rollout,
        **changes,
    )


def test_rolling_starts_an_upgrade_to_the_newest_model_on_the_same_image():
    assert plan(changed_set(UpgradeMode.ROLLING), T0).decisions == (
        StartUpgrade(
            target_version=OLD,
            target_digest=digest(OLD),
            model_revision=2,
            reason="model 2: 3 of 3 instances have an older one; mode Rolling",
        ),
    )


def test_a_changed_image_reference_moves_the_image_too():
    (started,) = plan(changed_set(UpgradeMode.ROLLING, MOVED), T0).decisions
    assert (started.target_version, started.target_digest) == (NEW, digest(NEW))


def test_automatic_gives_it_to_all_that_are_behind_at_once():
    instances = (
        make_instance(0, wanted=Wanted.STOPPED),
        make_instance(1, generations=(make_generation(model_revision=2),)),
        make_instance(2),
    )
    assert plan(changed_set(UpgradeMode.AUTOMATIC, instances=instances), T0).decisions == (
        RenewInstances(
            instances=("web_0", "web_2"),
            target_version=OLD,
            target_digest=digest(OLD),
            model_revision=2,
            reason="model 2 for 2 of 3 instances; mode Automatic",
        ),
    )


def test_manual_forgets_a_wish_from_before_the_mode_was_changed():
    (decision,) = plan(changed_set(UpgradeMode.MANUAL), T0).decisions
    assert isinstance(decision, RenewInstances)
    assert decision.instances == ()


def test_a_wish_that_concerns_nobody_any_more_starts_no_upgrade():
    instances = [make_instance(n, generations=(make_generation(model_revision=2),)) for n in (0, 1)]
    instances.append(make_instance(2, wanted=Wanted.DELETED))
    scale_set = changed_set(UpgradeMode.ROLLING, instances=instances, is_deleting=False)
    assert find_outdated(scale_set, ASKED) == ()
    (decision,) = plan(scale_set, T0).decisions
    assert isinstance(decision, RenewInstances)
    assert decision.instances == ()
    assert [i.ordinal for i in find_outdated(scale_set, MOVED)] == [0, 1]


@pytest.mark.parametrize("mode", [UpgradeMode.ROLLING, UpgradeMode.AUTOMATIC])
def test_nothing_begins_without_a_wish(mode):
    assert plan(changed_set(mode, None), T0).decisions == ()


def test_a_set_that_is_being_deleted_rolls_nothing_out():
    decisions = plan(changed_set(UpgradeMode.AUTOMATIC, is_deleting=True), T0).decisions
    assert not any(isinstance(each, RenewInstances) for each in decisions)


def test_it_waits_for_the_upgrade_that_is_running():
    lost = make_instance(0, domain=DomainFacts(generation=None, power=Power.UNKNOWN))
    instances = (lost, make_instance(1), make_instance(2))
    answer = plan(upgrading(changed_set(UpgradeMode.ROLLING, instances=instances)), T0)
    assert answer.decisions == ()
    assert Hold(subject="web", reason="model 2 waits for the end of upgrade 7") in answer.holds


def test_it_does_not_wait_for_an_upgrade_that_has_ended():
    ended = upgrading(changed_set(UpgradeMode.ROLLING), code=UpgradeCode.FAULTED)
    assert isinstance(plan(ended, T0).decisions[0], StartUpgrade)


@pytest.mark.parametrize(
    ("changes", "is_applied"),
    [
        ({}, True),
        ({"generations": (make_generation(model_revision=1),)}, False),
        ({"generations": (make_generation(model_revision=2, prepared=False),)}, False),
        ({"generations": (make_generation(model_revision=2, extensions=()),)}, False),
        ({"domain": DomainFacts(generation=None, power=Power.STOPPED)}, False),
        ({"domain": DomainFacts(generation=1, power=Power.RUNNING, is_stale=True)}, False),
        ({"domain": DomainFacts(generation=1, power=Power.STOPPED)}, True),
    ],
)
def test_the_latest_model_is_applied_when_it_is_in_force(changes, is_applied):
    values = {"generations": (make_generation(model_revision=2),)} | changes
    instance = make_instance(0, **values)
    scale_set = changed_set(UpgradeMode.MANUAL, None, instances=[instance])
    assert has_latest_model(scale_set, instance) is is_applied
