"""Why an upgrade does not start."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import DomainFacts, Health, HealthState, Instance, Power, Wanted
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import UpgradeCode, UpgradeErrorCode, UpgradePurpose
from labctl.planner import admit_upgrade, find_purpose
from labctl.planner.admission import Refusal
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

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
WAITS = Health(state=HealthState.INITIALIZING, since=T0)


def admit(scale_set: ScaleSet, version: str = NEW) -> Refusal | None:
    return admit_upgrade(
        scale_set,
        target_version=version,
        target_digest=digest(version),
        now=T0 + timedelta(seconds=41),
    )


def with_first(first: Instance, count: int = 5) -> ScaleSet:
    return make_set(count, instances=[first, *(make_instance(n) for n in range(1, count))])


@pytest.mark.parametrize(
    "scale_set",
    [
        make_set(5),
        with_first(make_instance(0, health=ILL)),
        with_first(make_instance(0, health=WAITS)),
        with_first(make_instance(0, wanted=Wanted.STOPPED, health=ILL), count=2),
        with_first(make_instance(0, generations=(make_generation(version=NEW),))),
        upgrading(make_set(5), code=UpgradeCode.FAULTED),
    ],
)
def test_an_upgrade_may_start(scale_set: ScaleSet):
    assert admit(scale_set) is None


def message(refusal: Refusal | None) -> str:
    assert refusal is not None
    assert refusal.hint
    return refusal.message


def test_a_set_that_is_being_deleted_is_refused():
    assert message(admit(make_set(2, is_deleting=True))) == "'web' is being deleted"


def test_a_second_upgrade_is_refused():
    assert message(admit(upgrading(make_set(2)))) == "upgrade 7 to 1.1.0 has been running for 41 s"


def test_nothing_to_upgrade_is_refused():
    assert message(admit(make_set(2), OLD)) == (
        "nothing to upgrade: all 2 instances that should run are on 1.0.0 already"
    )
    assert message(admit(make_set(0))).startswith("nothing to upgrade: all 0 instances")


def with_models(*revisions: int) -> ScaleSet:
    """Instances of one image with these model revisions; 2 is the newest."""
    instances = [
        make_instance(n, generations=(make_generation(model_revision=revision),))
        for n, revision in enumerate(revisions)
    ]
    scale_set = make_set(len(revisions), instances=instances, model_revision=2)
    return replace(scale_set, models={1: scale_set.spec, 2: scale_set.spec})


def test_an_older_model_is_worth_an_upgrade_to_the_same_image():
    assert admit(with_models(2, 1), OLD) is None
    assert message(admit(with_models(2, 2), OLD)).startswith("nothing to upgrade")


def test_an_upgrade_is_for_the_image_as_long_as_one_has_another():
    assert find_purpose(with_models(1, 2), digest(OLD)) is UpgradePurpose.MODEL
    assert find_purpose(with_models(1, 2), digest(NEW)) is UpgradePurpose.OS_IMAGE
    ahead = (make_generation(version=NEW),)
    mixed = with_first(make_instance(0, generations=ahead))
    assert find_purpose(mixed, digest(NEW)) is UpgradePurpose.OS_IMAGE
    stopped = with_first(make_instance(0, wanted=Wanted.STOPPED, generations=ahead))
    assert find_purpose(stopped, digest(OLD)) is UpgradePurpose.MODEL


def test_an_unhealthy_set_is_refused_with_the_code_of_the_page():
    scale_set = with_first(make_instance(0, health=ILL), count=4)
    refusal = admit(scale_set)
    assert message(refusal) == (
        "unhealthy in the scale set: 1 of 4 (25 %), more than 20 %; first web_0: HTTP 503"
    )
    assert refusal is not None
    assert refusal.code is UpgradeErrorCode.UNHEALTHY_BEFORE


def test_a_set_that_is_not_provisioned_is_refused():
    starting = make_instance(0, generations=(make_generation(ready_at=None),))
    assert message(admit(with_first(starting))) == (
        "web_0 is not provisioned yet: starting: SSH or custom data is not through yet"
    )


def test_a_set_whose_extensions_run_is_refused():
    running = make_instance(0, generations=(make_generation(extensions=()),))
    assert message(admit(with_first(running))) == (
        "web_0 is not provisioned yet: extension 'app' has not succeeded yet"
    )


def test_without_the_hypervisor_nothing_starts():
    lost = make_instance(0, domain=DomainFacts(generation=None, power=Power.UNKNOWN))
    assert message(admit(with_first(lost))) == "the hypervisor does not answer"
    assert message(admit(replace(make_set(1), instances=(lost,)))).startswith("the hypervisor")


def test_only_protected_ones_left_means_that_nothing_is_to_be_upgraded():
    protected = make_instance(0, protect_from_scale_in=True, protect_from_scale_set_actions=True)
    on_target = make_instance(1, generations=(make_generation(version=NEW),))
    refusal = admit(make_set(2, instances=[protected, on_target]))
    assert refusal is not None
    assert refusal.is_done
    assert message(refusal) == (
        "nothing to upgrade: all 2 instances that should run are on 1.1.0 already, or protected "
        "from scale set actions: web_0"
    )
    assert admit(make_set(2, instances=[protected, make_instance(1)])) is None


def test_a_protected_one_with_an_older_model_is_no_reason_for_an_upgrade():
    protected = make_instance(0, protect_from_scale_in=True, protect_from_scale_set_actions=True)
    newest = make_generation(version=NEW, model_revision=2)
    spec = make_spec(2)
    changed = make_set(
        2,
        spec=spec,
        models={1: spec, 2: spec},
        model_revision=2,
        instances=[protected, make_instance(1, generations=(newest,))],
    )
    refusal = admit(changed)
    assert refusal is not None
    assert refusal.is_done
