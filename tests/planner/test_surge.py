"""New instances that come for old ones: one turn at a time. Whole runs are in the stories."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.model.hook import Hook, HookKind, Hooks
from labctl.model.instance import (
    NO_DOMAIN,
    DomainFacts,
    ExtensionRun,
    Health,
    HealthState,
    HookFailure,
    Instance,
    Power,
    Wanted,
)
from labctl.model.machine import DataDisk
from labctl.model.plan import (
    BeginBatch,
    CollectEvidence,
    CreateInstance,
    EndUpgrade,
    Hold,
    MoveMember,
    RemoveInstance,
    Replacement,
    ScaleSet,
)
from labctl.model.spec import Network
from labctl.model.upgrade import MemberState, UpgradeCode, UpgradeErrorCode
from labctl.planner import explain, find_upgrade_steps, plan, preview
from labctl.planner.foresight import record
from labctl.planner.situation import survey
from labctl.planner.surge import find_newcomers, find_reserved
from tests.planner.world import (
    MIB,
    NEW,
    T0,
    digest,
    make_generation,
    make_instance,
    make_policy,
    make_set,
    make_spec,
    upgrading,
)

STARTED = T0 + timedelta(seconds=10)
READY = T0 + timedelta(seconds=30)
NOW = T0 + timedelta(seconds=60)
LATE = T0 + timedelta(seconds=360)
ILL = Health(state=HealthState.UNHEALTHY, since=READY, detail="HTTP 503")
FINE = Health(state=HealthState.HEALTHY, since=READY)
RUN = ExtensionRun(name="app", started_at=READY, finished_at=READY, exit_code=0)
FIRST = make_generation(1, version=NEW, started_at=STARTED, ready_at=READY, extensions=(RUN,))


def surging(count: int = 2, **changes) -> ScaleSet:
    """An upgrade by new instances that has not begun its first batch."""
    policy = make_policy(max_surge=True)
    spec = make_spec(count, upgrade_policy=policy, **changes.pop("spec", {}))
    return upgrading(make_set(count, spec=spec, **changes.pop("set", {})), **changes)


def successor(**changes) -> Instance:
    """web_2, which comes for web_0: up on the target, and ill unless told otherwise."""
    values = {
        "generations": (FIRST,),
        "domain": DomainFacts(generation=1, power=Power.RUNNING),
        "health": ILL,
        "created_at": T0,
    }
    return make_instance(2, **(values | changes))


def in_batch(new: Instance | None, old: Instance | None = None, **changes) -> ScaleSet:
    """web_2 has come for web_0 in batch 1 of 2."""
    scale_set = surging(batches=1, **{k: v for k, v in changes.items() if k == "restores"})
    first, second = scale_set.upgrade.members
    member = replace(
        first,
        state=MemberState.IN_PROGRESS,
        batch=1,
        from_generation=1,
        to_generation=1,
        replaced_by="web_2",
        admitted_at=T0,
        settled_at=T0 + timedelta(seconds=40),
    )
    member = replace(member, **{k: v for k, v in changes.items() if k != "restores"})
    there = (old or make_instance(0), make_instance(1), *([new] if new else []))
    return replace(
        scale_set,
        instances=there,
        upgrade=replace(scale_set.upgrade, members=(member, second)),
    )


def begin(scale_set: ScaleSet) -> BeginBatch:
    (decision,) = [d for d in plan(scale_set, NOW).decisions if isinstance(d, BeginBatch)]
    return decision


def moves(scale_set: ScaleSet, now=NOW) -> list[tuple]:
    """What is decided, in short."""
    return [
        (d.instance, d.state, d.reason) if isinstance(d, MoveMember) else ("remove", d.instance)
        for d in plan(scale_set, now).decisions
        if isinstance(d, MoveMember | RemoveInstance)
    ]


def test_a_batch_gets_successors_with_new_ordinals():
    batch = begin(surging(6))
    assert batch.replacements == (Replacement(instance="web_0", ordinal=6),)
    assert batch.reason == "batch 1 of 6 to 1.1.0: at most 1 of 6 at once; web_6 for web_0"


def test_ordinals_are_given_again_by_the_next_upgrade_only():
    present = tuple(make_instance(n) for n in (2, 3))
    assert begin(surging(set={"instances": present})).replacements[0].ordinal == 0
    # web_2 was replaced by web_0 in this upgrade, and web_1 failed to come for somebody.
    scale_set = surging(set={"instances": present})
    first, second = scale_set.upgrade.members
    done = replace(first, state=MemberState.ROLLED_BACK, replaced_by="web_0", batch=1)
    policy = make_policy(max_surge=True, max_unhealthy_upgraded_instance_percent=100)
    upgrade = replace(
        scale_set.upgrade,
        members=(done, second),
        batches=1,
        batch_ended_at=T0,
        policy=policy.rolling_upgrade_policy,
    )
    assert begin(replace(scale_set, upgrade=upgrade)).replacements[0].ordinal == 1


def test_without_max_surge_nobody_is_replaced():
    assert begin(upgrading(make_set(2))).replacements == ()


ROOM = surging().capacity


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"free_memory": 640 * MIB - 1},
            "640 MiB of memory are needed for 1 more, 639 are free",
        ),
        ({"free_memory": -5}, "640 MiB of memory are needed for 1 more, 0 are free"),
        ({"free_space": 512 * MIB - 1}, "512 MiB on disk are needed for 1 more, 511 are free"),
    ],
)
def test_where_the_host_has_no_room_for_more_the_batch_goes_in_place(changes, reason):
    batch = begin(surging(set={"capacity": replace(ROOM, **changes)}))
    assert batch.replacements == ()
    assert batch.reason.endswith(f"at once; in place: {reason}")


def test_who_is_wanted_and_off_has_its_memory_first():
    off = make_instance(
        1,
        generations=(make_generation(started_at=None, ready_at=None),),
        domain=replace(NO_DOMAIN, generation=1),
    )
    scale_set = surging(
        set={
            "instances": (make_instance(0), off),
            "capacity": replace(ROOM, free_memory=2 * 640 * MIB - 1),
        }
    )
    assert "in place: 640 MiB" in begin(scale_set).reason


@pytest.mark.parametrize(("subnet", "is_replaced"), [(None, True), ("10.99.0.0/28", False)])
def test_without_an_address_for_more_the_batch_goes_in_place(subnet, is_replaced):
    network = Network(type="nat", subnet=subnet)  # /28: 16 less 11 are 5
    batch = begin(surging(5, spec={"network": network}))
    assert bool(batch.replacements) is is_replaced
    assert ("the subnet has 5 addresses, none for web_5" in batch.reason) is not is_replaced


def test_the_protected_and_those_with_data_are_upgraded_in_place():
    guarded = make_instance(0, protect_from_scale_in=True)
    batch = begin(surging(set={"instances": (guarded, make_instance(1))}))
    assert (batch.instances, batch.replacements) == (("web_0",), ())
    assert batch.reason.endswith("; web_0 in place: protected from scale-in")
    # The spec was without data disks when the upgrade began; web_0 was made with a newer one.
    scale_set = surging()
    disk = DataDisk(name="db", size="1GiB")
    newer = make_spec(2, data_disks=(disk,))
    first = make_instance(0, generations=(make_generation(model_revision=2),))
    scale_set = replace(
        scale_set,
        models={**scale_set.models, 2: newer},
        instances=(first, make_instance(1)),
    )
    assert begin(scale_set).reason.endswith("; web_0 in place: its data disks would stay behind")


def test_the_next_batch_waits_until_what_was_replaced_is_gone():
    leaving = make_instance(5, wanted=Wanted.DELETED)
    scale_set = surging(set={"instances": (make_instance(0), make_instance(1), leaving)})
    answer = plan(scale_set, NOW)
    assert not any(isinstance(d, BeginBatch) for d in answer.decisions)
    reason = "the next batch waits for the deletion of web_5, and for its memory"
    assert Hold(subject="web", reason=reason) in answer.holds
    unhurried = replace(
        scale_set, upgrade=replace(scale_set.upgrade, policy=make_policy().rolling_upgrade_policy)
    )
    assert begin(unhurried).instances == ("web_0",)


def test_a_successor_is_made_on_the_target_and_proves_itself_while_the_old_one_serves():
    scale_set = surging()
    after = record(scale_set, begin(scale_set), NOW)
    new = after.instances[-1]
    assert (new.name, new.generation, new.wanted) == ("web_2", 1, Wanted.RUNNING)
    assert (new.current.image_version, new.current.image_digest) == (NEW, digest(NEW))
    assert after.instances[0] == scale_set.instances[0]
    member = after.upgrade.members[0]
    assert (member.state, member.carrier) == (MemberState.IN_PROGRESS, "web_2")
    assert [s.is_moving for s in survey(after)] == [False, False, True]
    assert find_newcomers(after) == {"web_2"}
    assert plan(after, NOW).decisions == ()  # neither too many nor too few
    over = replace(after, upgrade=replace(after.upgrade, code=UpgradeCode.CANCELLED))
    assert (find_newcomers(over), find_reserved(over)) == (frozenset(), frozenset())


def test_when_it_serves_the_old_one_goes_in_the_same_commit():
    assert moves(in_batch(successor(health=FINE))) == [
        ("web_0", MemberState.SUCCEEDED, "web_2 is healthy on 1.1.0"),
        ("remove", "web_0"),
    ]


def test_until_then_the_wait_is_told_of_the_successor():
    answer = plan(in_batch(successor()), NOW)
    assert answer.decisions == ()
    assert answer.holds == (
        Hold(
            subject="web_2",
            reason="waiting for health of web_2, 280 s of 300 s left: HTTP 503",
            until=T0 + timedelta(seconds=340),
        ),
    )


def saved(**changes) -> Instance:
    return successor(generations=(replace(FIRST, evidence_at=NOW),), **changes)


def test_evidence_is_collected_before_a_successor_goes():
    (action,) = plan(in_batch(successor()), LATE).actions
    assert isinstance(action, CollectEvidence)
    assert (action.instance, action.generation) == ("web_2", 1)


WHY = "web_2: not healthy within 300 s: HTTP 503; web_0 was not touched and is "


@pytest.mark.parametrize(
    ("restores", "health", "state", "how"),
    [
        (True, FINE, MemberState.ROLLED_BACK, "healthy"),
        (True, ILL, MemberState.ROLLBACK_FAILED, "unhealthy"),
        (False, FINE, MemberState.FAILED, "healthy"),
    ],
)
def test_a_successor_that_fails_is_deleted_and_the_old_one_stays(restores, health, state, how):
    scale_set = in_batch(saved(), make_instance(0, health=health), restores=restores)
    assert moves(scale_set, LATE) == [("web_0", state, WHY + how), ("remove", "web_2")]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"wanted": Wanted.DELETED}, {}, "deleted meanwhile"),
        ({"wanted": Wanted.STOPPED}, {}, "stopped by its user meanwhile"),
        ({"protect_from_scale_in": True}, {}, "protected meanwhile"),
        ({}, {"wanted": Wanted.STOPPED}, "web_2, which came for it, was stopped by its user"),
    ],
)
def test_a_pair_parts_where_one_of_them_is_wanted_otherwise(old, new, reason):
    scale_set = in_batch(successor(health=FINE, **new), make_instance(0, **old))
    if old.get("wanted") is Wanted.DELETED:  # its user has scaled in
        spec = scale_set.spec.model_copy(update={"capacity": 1})
        scale_set = replace(scale_set, spec=spec)
    assert moves(scale_set) == [("web_0", MemberState.SKIPPED, reason), ("remove", "web_2")]


@pytest.mark.parametrize("new", [None, successor(wanted=Wanted.DELETED)], ids=["gone", "leaving"])
def test_a_pair_parts_without_its_successor(new):
    reason = "web_2, which came for it, was deleted meanwhile"
    assert moves(in_batch(new)) == [("web_0", MemberState.SKIPPED, reason)]


def test_a_pair_parts_when_the_old_one_is_gone():
    scale_set = in_batch(successor())
    spec = scale_set.spec.model_copy(update={"capacity": 1})
    scale_set = replace(scale_set, spec=spec, instances=scale_set.instances[1:])
    assert moves(scale_set) == [
        ("web_0", MemberState.SKIPPED, "deleted meanwhile"),
        ("remove", "web_2"),
    ]


def stranded() -> ScaleSet:
    """web_2 is prepared and defined, but others have taken its memory."""
    fresh = make_generation(1, version=NEW, started_at=None, ready_at=None, extensions=())
    new = successor(generations=(fresh,), domain=DomainFacts(generation=1, power=Power.STOPPED))
    scale_set = in_batch(new, settled_at=None)
    return replace(scale_set, capacity=replace(ROOM, free_memory=639 * MIB))


def test_a_successor_without_memory_is_given_up_after_a_while():
    until = T0 + timedelta(seconds=300)
    reason = "web_2 waits for memory, 300 s at most; then it is given up"
    assert Hold(subject="web", reason=reason, until=until) in plan(stranded(), NOW).holds
    assert moves(stranded(), until) == [
        ("web_0", MemberState.PENDING, "no memory for web_2 within 300 s"),
        ("remove", "web_2"),
    ]
    after = stranded()
    for decision in plan(after, until).decisions:
        after = record(after, decision, until)
    member = after.upgrade.members[0]
    assert (member.state, member.batch, member.carrier) == (MemberState.PENDING, None, "web_0")


def test_with_memory_or_once_it_was_on_a_successor_is_not_given_up():
    roomy = replace(stranded(), capacity=replace(ROOM, free_memory=640 * MIB))
    assert moves(roomy, LATE) == []
    started = replace(stranded(), instances=in_batch(successor()).instances)
    assert moves(started, NOW) == []


def test_scaling_counts_no_successor_and_gives_nobody_the_name_of_a_pair():
    scale_set = in_batch(successor())
    spec = scale_set.spec.model_copy(update={"capacity": 3})
    assert plan(replace(scale_set, spec=spec), NOW).decisions == (
        CreateInstance(ordinal=3, reason="capacity is 3, present are 2"),
    )
    done = record(scale_set, plan(in_batch(successor(health=FINE)), NOW).decisions[0], NOW)
    assert find_reserved(done) == {0, 2}
    spec = scale_set.spec.model_copy(update={"capacity": 1})
    assert moves(replace(scale_set, spec=spec)) == [("remove", "web_1")]


def ended_batch(member_state: MemberState, **changes) -> ScaleSet:
    """Batch 1 is over: web_2 stands for web_0, or came in vain."""
    scale_set = in_batch(successor(**changes), state=member_state, message="503")
    upgrade = replace(scale_set.upgrade, batch_ended_at=T0)
    return replace(scale_set, upgrade=upgrade)


def test_a_successor_that_falls_ill_later_counts_as_unhealthy_among_the_upgraded():
    scale_set = ended_batch(MemberState.SUCCEEDED)
    there = tuple(i for i in scale_set.instances if i.name != "web_0")
    (ended,) = plan(replace(scale_set, instances=there), NOW).decisions
    assert isinstance(ended, EndUpgrade)
    assert ended.error.code is UpgradeErrorCode.UNHEALTHY_UPGRADED
    assert "first web_2: healthy at first, then HTTP 503" in ended.reason


@pytest.mark.parametrize(("health", "told"), [(FINE, 1), (ILL, 0)])
def test_at_a_limit_that_puts_back_who_was_not_touched_is_where_it_was(health, told):
    scale_set = ended_batch(MemberState.FAILED, wanted=Wanted.DELETED)
    policy = make_policy(max_surge=True, rollback_failed_instances_on_policy_breach=True)
    upgrade = replace(scale_set.upgrade, policy=policy.rolling_upgrade_policy, restores=False)
    instances = (make_instance(0, health=health), *scale_set.instances[1:])
    scale_set = replace(scale_set, upgrade=upgrade, instances=instances)
    expected = [("web_0", MemberState.ROLLED_BACK, "503")] * told
    assert moves(scale_set) == expected


def test_why_tells_who_comes_for_whom():
    scale_set = in_batch(successor())
    by_name = {i.name: i for i in scale_set.instances}
    told = [line for name in ("web_0", "web_2") for line in explain(scale_set, by_name[name], NOW)]
    start = "upgrade 7 to 1.1.0 (RollingForward): InProgress in batch 1, "
    assert start + "web_2 comes for it" in told
    assert start + "it comes for web_0" in told


def test_a_preview_tells_who_would_come_for_whom_and_where_the_host_has_no_room():
    scale_set = replace(surging(), upgrade=None)

    def foresee(scale_set: ScaleSet):
        answer = preview(scale_set, target_version=NEW, target_digest=digest(NEW), now=NOW)
        assert answer.ending == "Completed: no instance is left to upgrade"
        return [batch.replacements for batch in answer.batches]

    assert foresee(scale_set) == [(("web_2", "web_0"),), (("web_3", "web_1"),)]
    poor = replace(scale_set, capacity=replace(ROOM, free_memory=0))
    assert foresee(poor) == [(), ()]


def departing(tries: int) -> ScaleSet:
    """web_0 was replaced by web_2 in batch 1, and its drain has failed so often."""
    hooks = Hooks(drain=Hook(command=("drain",)), undrain=Hook(command=("undrain",)))
    scale_set = in_batch(
        successor(health=FINE),
        make_instance(
            0,
            wanted=Wanted.DELETED,
            hook_failure=HookFailure(kind=HookKind.DRAIN, at=NOW, message="busy", tries=tries),
        ),
        state=MemberState.SUCCEEDED,
    )
    policy = scale_set.spec.upgrade_policy.model_copy(update={"hooks": hooks})
    spec = scale_set.spec.model_copy(update={"upgrade_policy": policy})
    return replace(
        scale_set, spec=spec, upgrade=replace(scale_set.upgrade, batch_ended_at=T0, batches=1)
    )


def test_a_drain_of_the_replaced_that_keeps_failing_stops_the_upgrade():
    answer = plan(departing(tries=2), NOW)
    assert answer.decisions == ()
    assert "the next batch waits for the deletion of web_0" in answer.holds[0].reason
    (ended,) = plan(departing(tries=3), NOW).decisions
    assert isinstance(ended, EndUpgrade)
    assert ended.error is not None
    assert ended.error.code is UpgradeErrorCode.DRAIN_FAILED
    assert ended.reason == "web_0, which was replaced, cannot be drained: busy"


def test_successors_come_into_the_zone_of_those_that_they_replace():
    # The even ones are in a, and go first; the odd numbers between theirs are of b.
    policy = make_policy(max_surge=True, max_batch_instance_percent=50)
    spec = make_spec(6, zones=("a", "b"), update_domain_count=1, upgrade_policy=policy)
    batch = begin(upgrading(make_set(6, spec=spec)))
    found = [(each.instance, each.ordinal) for each in batch.replacements]
    assert found == [("web_0", 6), ("web_2", 8), ("web_4", 10)]


def test_what_is_waited_for_names_successors_and_those_that_leave():
    scale_set = in_batch(successor(generations=(replace(FIRST, ready_at=None),), health=ILL))
    steps = find_upgrade_steps(scale_set, NOW)
    assert [action.instance for action in steps.actions] == ["web_2"]
    told = explain(scale_set, scale_set.instances[0], NOW)
    assert told[-1] == "next: nothing until web_2, which comes for it, is healthy"


def test_the_preview_tells_the_drains_of_the_last_batch_too():
    hooks = Hooks(drain=Hook(command=("drain",)))
    policy = make_policy(max_surge=True).model_copy(update={"hooks": hooks})
    scale_set = make_set(2, spec=make_spec(2, upgrade_policy=policy))
    found = preview(scale_set, target_version=NEW, target_digest=digest(NEW), now=T0)
    assert [batch.drains for batch in found.batches] == [("web_0",), ("web_1",)]
    assert found.ending.startswith("Completed")
