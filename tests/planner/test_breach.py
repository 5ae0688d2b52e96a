"""Where an upgrade stops at a limit, what failed goes back, if the policy says so."""

from dataclasses import replace

import pytest

from labctl.model.instance import (
    DomainFacts,
    ExtensionFault,
    ExtensionRun,
    Health,
    HealthState,
    Power,
    Wanted,
)
from labctl.model.plan import BeginRollback, EndUpgrade, Plan, ScaleSet
from labctl.model.upgrade import (
    MemberState,
    UpgradeCode,
    UpgradeError,
    UpgradeErrorCode,
)
from labctl.planner import plan
from labctl.planner.foresight import record
from tests.planner.world import (
    NEW,
    OLD,
    T0,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
NEW_DISK = make_generation(2, version=NEW, evidence_at=T0)
MESSAGE = "unhealthy after the upgrade to 1.1.0: 1 of 1 (100 %), more than 20 %; first web_0: 503"


def failed(instance=None, *, goes_back: bool = True, **changes) -> ScaleSet:
    """web_0 of two was left failed in the only batch so far."""
    policy = make_policy(rollback_failed_instances_on_policy_breach=goes_back)
    scale_set = upgrading(
        make_set(2, spec=make_spec(2, upgrade_policy=policy)),
        restores=False,
        batches=1,
        batch_ended_at=T0,
    )
    first = replace(
        make_instance(
            0,
            generation=2,
            generations=(make_generation(), NEW_DISK),
            domain=DomainFacts(generation=2, power=Power.RUNNING),
            health=ILL,
        ),
        **(instance or {}),
    )
    member = replace(
        scale_set.upgrade.members[0],
        state=MemberState.FAILED,
        batch=1,
        from_generation=1,
        to_generation=2,
        from_version=OLD,
        message="503",
    )
    member = replace(member, **changes)
    return replace(
        scale_set,
        instances=(first, make_instance(1)),
        upgrade=replace(scale_set.upgrade, members=(member, scale_set.upgrade.members[1])),
    )


def end(message: str = MESSAGE) -> Plan:
    error = UpgradeError(code=UpgradeErrorCode.UNHEALTHY_UPGRADED, message=message)
    ended = EndUpgrade(upgrade=7, code=UpgradeCode.FAULTED, reason=message, error=error)
    return Plan(decisions=(ended,))


def test_what_failed_goes_back_before_the_upgrade_ends():
    error = UpgradeError(code=UpgradeErrorCode.UNHEALTHY_UPGRADED, message=MESSAGE)
    assert plan(failed(), T0).decisions == (
        BeginRollback(
            upgrade=7,
            instances=("web_0",),
            error=error,
            reason=f"{MESSAGE}; back to what they ran before: web_0",
        ),
    )


def test_without_the_policy_it_ends_at_once():
    assert plan(failed(goes_back=False), T0) == end()


@pytest.mark.parametrize(
    "change",
    [
        {"wanted": Wanted.STOPPED},
        {"protect_from_scale_in": True, "protect_from_scale_set_actions": True},
        {"health": Health(state=HealthState.HEALTHY, since=T0)},
        {"generations": (NEW_DISK,)},
        {"generation": 3, "generations": (make_generation(), NEW_DISK, make_generation(3))},
    ],
    ids=["stopped", "protected", "recovered", "no previous disk", "reimaged since"],
)
def test_who_is_not_the_upgrades_matter_any_more_stays(change):
    assert plan(failed(change), T0) == end()


def test_who_got_its_model_without_a_new_disk_has_no_way_back():
    assert plan(failed(from_generation=2), T0) == end()


def test_a_refused_credential_is_no_breach():
    """The previous disk would need it as well; the code names the credential."""
    run = ExtensionRun(
        name="app",
        started_at=T0,
        finished_at=T0,
        exit_code=None,
        fault=ExtensionFault.CREDENTIAL,
    )
    disk = replace(NEW_DISK, extensions=(run,))
    (decision,) = plan(failed({"generations": (make_generation(), disk)}), T0).decisions
    assert decision.error.code is UpgradeErrorCode.CREDENTIAL_REFUSED


def test_the_code_is_rolling_back_meanwhile_and_the_end_has_the_first_reason():
    scale_set = failed()
    (begin,) = plan(scale_set, T0).decisions
    scale_set = record(scale_set, begin, T0)
    assert scale_set.upgrade.code is UpgradeCode.ROLLING_BACK
    assert scale_set.upgrade.members[0].state is MemberState.ROLLING_BACK
    assert scale_set.instances[0].generation == 1
    assert scale_set.instances[0].current.started_at is None
    # Restored, it is healthy: nothing exceeds a limit now, and the upgrade ends all the same.
    back = replace(scale_set.upgrade.members[0], state=MemberState.ROLLED_BACK)
    members = (back, scale_set.upgrade.members[1])
    scale_set = replace(
        scale_set,
        instances=(make_instance(0), make_instance(1)),
        upgrade=replace(scale_set.upgrade, members=members, cancel_asked_at=T0),
    )
    assert plan(scale_set, T0) == end()


def test_the_previous_disk_of_who_failed_is_kept_until_the_upgrade_is_over():
    well = {"health": Health(state=HealthState.HEALTHY, since=T0)}
    running = failed(well)
    policy = make_policy(
        max_unhealthy_upgraded_instance_percent=100,
        rollback_failed_instances_on_policy_breach=True,
    ).rolling_upgrade_policy
    upgrade = replace(running.upgrade, paused_at=T0, policy=policy)
    assert plan(replace(running, upgrade=upgrade), T0).actions == ()
    over = replace(upgrade, code=UpgradeCode.COMPLETED)
    assert [type(a).__name__ for a in plan(replace(running, upgrade=over), T0).actions] == [
        "DiscardGeneration"
    ]


def test_too_many_unhealthy_in_the_whole_set_are_a_breach_as_well():
    policy = make_policy(
        max_unhealthy_upgraded_instance_percent=100,
        rollback_failed_instances_on_policy_breach=True,
    )
    scale_set = failed()
    upgrade = replace(scale_set.upgrade, policy=policy.rolling_upgrade_policy)
    (decision,) = plan(replace(scale_set, upgrade=upgrade), T0).decisions
    assert isinstance(decision, BeginRollback)
    assert decision.error.code is UpgradeErrorCode.UNHEALTHY_DURING
