"""What the facts become; where the stories do not go."""

from dataclasses import replace
from datetime import timedelta

from labctl.model.instance import DomainFacts, HealthState, Power
from labctl.model.plan import (
    AwaitReady,
    DeleteInstance,
    RenewInstances,
    RerunCustomData,
    Rollout,
    RunExtension,
    Start,
)
from labctl.model.upgrade import MemberState
from labctl.planner.foresight import record, succeed
from tests.planner.world import (
    NEW,
    OLD,
    T0,
    digest,
    make_generation,
    make_instance,
    make_set,
    upgrading,
)

NEVER = make_generation(started_at=None, ready_at=None, extensions=())
OFF = DomainFacts(generation=1, power=Power.STOPPED)


def test_an_instance_is_healthy_when_its_last_extension_has_succeeded():
    scale_set = make_set(1, instances=[make_instance(0, generations=(NEVER,), domain=OFF)])
    scale_set = succeed(scale_set, Start(instance="web_0", generation=1, reason=""), T0)
    assert scale_set.instances[0].health.since is None
    scale_set = succeed(scale_set, AwaitReady(instance="web_0", generation=1, reason=""), T0)
    assert scale_set.instances[0].current.is_ready
    assert scale_set.instances[0].health.state is HealthState.UNKNOWN
    last = RunExtension(instance="web_0", generation=1, extension="app", reason="")
    scale_set = succeed(scale_set, last, T0)
    assert scale_set.instances[0].health.state is HealthState.HEALTHY


def test_a_member_settles_once():
    scale_set = upgrading(make_set(1))
    member = replace(scale_set.upgrade.members[0], state=MemberState.IN_PROGRESS)
    scale_set = replace(scale_set, upgrade=replace(scale_set.upgrade, members=(member,)))
    asked = replace(scale_set.instances[0], rerun_custom_data_asked_at=T0)
    scale_set = replace(scale_set, instances=(asked,))
    rerun = RerunCustomData(instance="web_0", generation=1, reason="")
    for later in (1, 2):
        scale_set = succeed(scale_set, rerun, T0 + timedelta(seconds=later))
    assert scale_set.instances[0].rerun_custom_data_asked_at is None
    assert scale_set.upgrade.members[0].settled_at == T0 + timedelta(seconds=1)


def test_a_deleted_instance_is_gone():
    gone = succeed(make_set(2), DeleteInstance(instance="web_0", reason=""), T0)
    assert [i.name for i in gone.instances] == ["web_1"]


def test_the_set_moves_to_an_image_when_its_last_instance_does():
    scale_set = make_set(2, rollout=Rollout(asked_at=T0))
    for name, version in (("web_0", OLD), ("web_1", NEW)):
        renewed = RenewInstances(
            instances=(name,),
            target_version=NEW,
            target_digest=digest(NEW),
            model_revision=1,
            reason="",
        )
        scale_set = record(scale_set, renewed, T0)
        assert scale_set.image_version == version
        assert scale_set.rollout is None
    assert [i.generation for i in scale_set.instances] == [2, 2]
