"""Extensions that may fail, that run again by their tag, and whose credential is refused."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.instance import DomainFacts, ExtensionFault, ExtensionRun, Power
from labctl.model.plan import CollectEvidence, EndUpgrade, MoveMember, RunExtension, ScaleSet
from labctl.model.setup import Extension
from labctl.model.upgrade import MemberState, UpgradeCode, UpgradeErrorCode
from labctl.planner import judge_health, plan
from labctl.planner.health import find_failure, find_next_extension, is_credential_refused
from labctl.planner.situation import Situation, survey
from tests.planner.world import (
    NEW,
    T0,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

REFUSED = "extensions: extension 'app' has no usable credential"


def ended(name: str = "app", *, exit_code: int | None = 0, **changes) -> ExtensionRun:
    return ExtensionRun(
        name=name,
        started_at=T0,
        finished_at=T0 + timedelta(seconds=5),
        exit_code=exit_code,
        **changes,
    )


def situate(*runs: ExtensionRun, extensions: tuple[Extension, ...]) -> Situation:
    instance = make_instance(0, generations=(make_generation(extensions=runs),))
    spec = make_spec(1, extensions=extensions)
    return survey(make_set(1, spec=spec, instances=[instance]))[0]


TOLERATED = Extension(name="app", script="true", suppress_failures=True)
AFTER = Extension(name="after", script="true", provision_after_extensions=("app",))


def test_a_failure_that_is_suppressed_fails_nothing_and_lets_the_next_begin():
    situation = situate(ended(exit_code=3), extensions=(TOLERATED, AFTER))
    assert find_failure(situation) is None
    assert find_next_extension(situation) == AFTER


def test_one_that_may_fail_is_still_waited_for():
    running = replace(ended(exit_code=None), finished_at=None)
    for runs in ((), (running,)):
        assert find_next_extension(situate(*runs, extensions=(TOLERATED, AFTER))) == TOLERATED


def test_a_failure_of_another_extension_is_not_suppressed_with_it():
    situation = situate(ended(), ended("after", exit_code=3), extensions=(TOLERATED, AFTER))
    failure = find_failure(situation)
    assert failure is not None
    assert failure.message == "extension 'after' ended with 3"


@pytest.mark.parametrize(
    ("wanted", "ran", "runs_again"),
    [
        (None, None, False),
        ("2", "1", True),
        ("2", None, True),
        ("2", "2", False),
        (None, "1", False),
    ],
)
def test_another_tag_runs_it_again_and_no_tag_does_not(wanted, ran, runs_again):
    tagged = Extension(name="app", script="true", force_update_tag=wanted)
    situation = situate(ended(tag=ran), extensions=(tagged,))
    assert (find_next_extension(situation) is not None) is runs_again


def test_the_run_knows_the_tag_that_it_runs_under():
    tagged = Extension(name="app", script="true", force_update_tag="2")
    scale_set = make_set(1, spec=make_spec(1, extensions=(tagged,)))
    (action,) = plan(scale_set, T0).actions
    assert isinstance(action, RunExtension)
    assert (action.extension, action.tag) == ("app", "2")
    assert not judge_health(scale_set.instances[0], scale_set).is_healthy


def refused(**changes) -> ScaleSet:
    """web_0 of two has been swapped, and the credential of its extension is refused."""
    fault = ended(exit_code=None, fault=ExtensionFault.CREDENTIAL)
    values = {
        "version": NEW,
        "started_at": T0 - timedelta(seconds=30),
        "ready_at": T0 - timedelta(seconds=10),
        "extensions": (fault,),
        "evidence_at": T0 + timedelta(seconds=6),
    }
    instance = make_instance(
        0,
        generation=2,
        generations=(make_generation(), make_generation(2, **(values | changes))),
        domain=DomainFacts(generation=2, power=Power.RUNNING),
    )
    policy = make_policy(max_unhealthy_upgraded_instance_percent=100)
    spec = make_spec(2, upgrade_policy=policy)
    scale_set = make_set(2, spec=spec, instances=(instance, make_instance(1)))
    return upgrading(scale_set, batches=1)


def with_member(scale_set: ScaleSet, state: MemberState, **upgrade) -> ScaleSet:
    first, *others = scale_set.upgrade.members
    first = replace(
        first, state=state, batch=1, from_generation=1, to_generation=2, message=REFUSED
    )
    changed = replace(scale_set.upgrade, members=(first, *others), **upgrade)
    return replace(scale_set, upgrade=changed)


NOW = T0 + timedelta(seconds=10)


def test_a_member_without_its_credential_is_left_failed_even_where_disks_are_restored():
    scale_set = with_member(refused(), MemberState.IN_PROGRESS)
    assert scale_set.upgrade.restores
    assert plan(scale_set, NOW).decisions == (
        MoveMember(upgrade=7, instance="web_0", state=MemberState.FAILED, reason=REFUSED),
    )


def test_its_evidence_is_saved_first():
    scale_set = with_member(refused(evidence_at=None), MemberState.IN_PROGRESS)
    (action,) = (a for a in plan(scale_set, NOW).actions if a.instance == "web_0")
    assert action == CollectEvidence(instance="web_0", generation=2, upgrade=7, reason=REFUSED)


def test_a_missing_resource_says_nothing_of_a_credential():
    fault = ended(exit_code=None, fault=ExtensionFault.RESOURCE)
    scale_set = with_member(refused(extensions=(fault,)), MemberState.IN_PROGRESS)
    (decision,) = plan(scale_set, NOW).decisions
    assert isinstance(decision, MoveMember)
    assert decision.state is MemberState.ROLLING_BACK
    assert decision.reason == "extensions: extension 'app' has no usable resource"


def test_one_refused_credential_ends_the_upgrade_whatever_share_may_fail():
    scale_set = with_member(refused(), MemberState.FAILED, batch_ended_at=NOW, cancel_asked_at=NOW)
    (decision,) = plan(scale_set, NOW).decisions
    assert isinstance(decision, EndUpgrade)
    assert decision.code is UpgradeCode.FAULTED
    assert decision.error is not None
    assert decision.error.code is UpgradeErrorCode.CREDENTIAL_REFUSED
    assert decision.reason == (
        f"web_0 is left failed: {REFUSED}; renew the credential in the spec, then run: labctl apply"
    )


def test_one_that_failed_for_another_reason_does_not_end_it_so():
    other = ended(exit_code=3)
    scale_set = with_member(
        refused(extensions=(other,)), MemberState.FAILED, batch_ended_at=NOW, restores=False
    )
    (decision,) = plan(scale_set, NOW).decisions
    assert isinstance(decision, EndUpgrade)
    assert decision.error is not None
    assert decision.error.code is UpgradeErrorCode.UNHEALTHY_DURING


def test_a_refusal_from_before_this_power_on_and_a_tolerated_one_do_not_count():
    fault = ended(exit_code=None, fault=ExtensionFault.CREDENTIAL)
    assert is_credential_refused(
        situate(fault, extensions=(AFTER, Extension(name="app", script="x")))
    )
    assert not is_credential_refused(situate(fault, extensions=(TOLERATED,)))
    old = replace(fault, started_at=T0 - timedelta(days=1))
    assert not is_credential_refused(situate(old, extensions=(Extension(name="app", script="x"),)))
