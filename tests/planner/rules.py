"""Rules that hold in every turn, worked out from the facts in another way than the planner's."""

from datetime import datetime

from labctl.model.control import ApprovalDefault, ApprovalScope
from labctl.model.instance import ExtensionFault, HealthState, Instance, Power, Wanted
from labctl.model.plan import (
    AwaitReady,
    BeginBatch,
    BeginRollback,
    CollectEvidence,
    DeleteInstance,
    DiscardGeneration,
    EndUpgrade,
    MoveMember,
    Plan,
    Prepare,
    RemoveInstance,
    RenewInstances,
    RunHook,
    ScaleSet,
    Start,
    StartUpgrade,
    Stop,
)
from labctl.model.upgrade import (
    Member,
    MemberState,
    Upgrade,
    UpgradeCode,
    UpgradeErrorCode,
    UpgradePurpose,
)
from labctl.model.upgrade_policy import UpgradeMode
from labctl.model.window import find_openings
from tests.planner.hook_rules import check_hook, check_stop
from tests.planner.placement_rules import check_balance, check_lanes
from tests.planner.repair_rules import check_repairs
from tests.planner.surge_rules import check_pairs, check_surge


def check_rules(scale_set: ScaleSet, answer: Plan, now: datetime) -> None:
    """Raises AssertionError for a plan that breaks a rule."""
    names = {i.name: i for i in scale_set.instances}
    acted = [action.instance for action in answer.actions]
    assert len(acted) == len(set(acted)), "more than one action for an instance"
    assert set(acted) <= set(names), "an action names an instance that is not there"
    assert not (answer.decisions and answer.actions), "decisions and actions together"
    for hold in answer.holds:
        assert hold.until is None or hold.until > now, "a hold that time has ended"
    upgrade = scale_set.upgrade
    members = {m.instance: m for m in upgrade.members} if upgrade else {}
    carriers = {m.carrier: m for m in members.values()}
    moving = {name for name, m in carriers.items() if m.state.is_moving}
    for action in answer.actions:
        instance = names[action.instance]
        if isinstance(action, DiscardGeneration):
            assert action.generation != instance.generation, "the current disk is discarded"
            assert instance.name not in moving, "a disk of a moving member is discarded"
            assert instance.domain.generation != action.generation
            assert instance.health.state is not HealthState.UNHEALTHY, "unproven, yet discards"
            thrown = instance.find_generation(action.generation)
            assert thrown is not None
            assert action.generation < instance.generation or thrown.evidence_at is not None
            is_way_back = (
                upgrade is not None
                and not upgrade.code.is_final
                and upgrade.policy.rollback_failed_instances_on_policy_breach
                and instance.name in members
                and members[instance.name].state is MemberState.FAILED
                and members[instance.name].replaced_by is None
            )
            assert not is_way_back, "a limit may still need the disk of before"
        if isinstance(action, Stop):
            is_asked = instance.wanted is not Wanted.RUNNING or instance.restart_asked_at
            is_dead = instance.domain.power is not Power.RUNNING
            is_renewed = instance.domain.generation != instance.generation
            is_repaired = any(r.is_open and r.instance == instance.name for r in scale_set.repairs)
            is_wished = is_asked or is_dead or is_renewed or is_repaired or instance.name in moving
            assert is_wished, "stops what nobody asked for"
            assert instance.current.prepared or is_asked, "stopped before the disk was ready"
        if isinstance(action, Stop | DeleteInstance):
            check_stop(scale_set, instance)
        if isinstance(action, RunHook):
            check_hook(scale_set, instance, action)
        if isinstance(action, Start):
            assert instance.wanted is Wanted.RUNNING
            assert instance.domain.generation == instance.generation
        if isinstance(action, Prepare):
            assert not instance.current.prepared
        if isinstance(action, CollectEvidence):
            assert carriers[action.instance].state is MemberState.IN_PROGRESS
    _check_boots(scale_set, answer)
    check_repairs(scale_set, answer, now)
    leaving = [d for d in answer.decisions if isinstance(d, RemoveInstance)]
    if len(leaving) == len(answer.decisions):  # decisions of scaling come alone
        check_balance(scale_set, leaving)
    check_pairs(scale_set, answer)
    for decision in answer.decisions:
        assert (
            upgrade is None
            or not upgrade.code.is_final
            or not isinstance(decision, BeginBatch | MoveMember | EndUpgrade)
        ), "a halted upgrade moves on"
        if isinstance(decision, StartUpgrade | RenewInstances):
            _check_rollout(scale_set, decision, now)
        if isinstance(decision, BeginBatch):
            _check_batch(scale_set, decision, now)
        if isinstance(decision, MoveMember):
            _check_move(scale_set, decision, now)
        if isinstance(decision, BeginRollback):
            _check_rollback(scale_set, decision)
        if isinstance(decision, EndUpgrade) and not scale_set.is_deleting:
            _check_nobody_is_left_behind(scale_set, decision)
            assert not moving, "ends while instances move"
            assert decision.code is not UpgradeCode.COMPLETED or not any(
                m.state is MemberState.PENDING for m in members.values()
            )
            assert (decision.error is not None) == (decision.code is UpgradeCode.FAULTED)
            if upgrade is not None and "was not approved within" in decision.reason:
                _check_silence(upgrade, now)


def _check_rollout(
    scale_set: ScaleSet, decision: StartUpgrade | RenewInstances, now: datetime
) -> None:
    assert scale_set.rollout is not None, "a model is rolled out that nobody asked for"
    running = scale_set.upgrade
    assert running is None or running.code.is_final, "two at once"
    assert decision.model_revision == max(scale_set.models)
    wanted = scale_set.rollout.image_digest or scale_set.image_digest
    assert decision.target_digest == wanted
    mode = scale_set.spec.upgrade_policy.mode
    assert isinstance(decision, StartUpgrade) <= (mode is UpgradeMode.ROLLING)
    if isinstance(decision, StartUpgrade) or decision.instances:
        assert _is_in_window(scale_set, now), "a model is rolled out outside of its window"
    if isinstance(decision, RenewInstances):
        assert not decision.instances or mode is UpgradeMode.AUTOMATIC
        for name in decision.instances:
            current = _find(scale_set, name).current
            assert (current.image_digest, current.model_revision) != (
                decision.target_digest,
                decision.model_revision,
            ), "one that has it is given it again"


def _check_boots(scale_set: ScaleSet, answer: Plan) -> None:
    starting = [
        a
        for a in answer.actions
        if isinstance(a, Start) and _find(scale_set, a.instance).domain.power is Power.STOPPED
    ]
    booting = [a for a in answer.actions if isinstance(a, AwaitReady)]
    capacity = scale_set.capacity
    if starting:
        assert len(starting) + len(booting) <= capacity.boots_at_once, "too many boots at once"
        each = scale_set.spec.size.memory + capacity.overhead_per_instance
        assert len(starting) * each <= capacity.free_memory, "more memory than the host has"


def _check_batch(scale_set: ScaleSet, batch: BeginBatch, now: datetime) -> None:
    upgrade = scale_set.upgrade
    assert upgrade is not None
    policy = upgrade.policy
    counted = [i for i in scale_set.instances if i.wanted is Wanted.RUNNING]
    share = len(counted) * policy.max_batch_instance_percent / 100
    allowed = 1 if len(counted) <= 5 else max(1, int(share + 1e-9))
    down = {i.name for i in counted if not _serves(scale_set, i)}
    taken = set(batch.instances)
    assert len(taken) == len(batch.instances) >= 1
    assert len(taken) <= allowed, "the batch is larger than its share"
    assert len(taken) == 1 or len(taken | down) <= allowed, "more down than the allowed share"
    states = {m.instance: m.state for m in upgrade.members}
    assert all(states[name] is MemberState.PENDING for name in taken), "twice in a batch"
    assert all(_find(scale_set, n).wanted is Wanted.RUNNING for n in taken)
    for name in taken:
        current = _find(scale_set, name).current
        has_image = current.image_digest == upgrade.target_digest
        has_model = current.model_revision >= upgrade.model_revision
        is_for_model = upgrade.purpose is UpgradePurpose.MODEL
        assert not (has_image and (has_model or not is_for_model)), "has what the upgrade brings"
    assert not any(state.is_moving for state in states.values()), "two batches at once"
    assert upgrade.cancel_asked_at is None, "a batch begins after the cancel"
    assert upgrade.code is UpgradeCode.ROLLING_FORWARD, "a batch begins while it goes back"
    assert upgrade.paused_at is None, "a batch begins in a pause"
    is_in_time = upgrade.ignores_windows or _is_in_window(scale_set, now)
    assert is_in_time, "a batch begins outside of its window"
    _check_approval(upgrade, batch, now)
    _check_canary(scale_set, batch, now)
    check_surge(scale_set, batch)
    _check_phase(scale_set, upgrade, taken)
    check_lanes(scale_set, upgrade, taken)
    if upgrade.batch_ended_at is not None:
        assert now >= upgrade.batch_ended_at + policy.pause_time_between_batches
    assert upgrade.error is None, "goes on although its end is decided"
    left = {m.carrier for m in upgrade.members if m.state is MemberState.FAILED}
    assert not any(i.name in left and _has_refused_credential(i) for i in scale_set.instances), (
        "goes on although a credential was refused"
    )
    ill = [i for i in counted if _is_ill(scale_set, i)]
    assert len(ill) / len(counted) <= policy.max_unhealthy_instance_percent / 100 + 1e-9
    failed = [name for name, state in states.items() if state.has_failed]
    upgraded = [name for name, state in states.items() if state is MemberState.SUCCEEDED]
    worst = policy.max_unhealthy_upgraded_instance_percent / 100 + 1e-9
    if failed or upgraded:
        carriers = {m.instance: m.carrier for m in upgrade.members}
        now_ill = [
            n
            for n in upgraded
            if any(i.name == carriers[n] and _is_ill(scale_set, i) for i in counted)
        ]
        assert (len(failed) + len(now_ill)) / (len(failed) + len(upgraded)) <= worst, (
            "goes on although too many of the upgraded are unhealthy"
        )


def _check_rollback(scale_set: ScaleSet, decision: BeginRollback) -> None:
    upgrade = scale_set.upgrade
    assert upgrade is not None
    assert upgrade.code is UpgradeCode.ROLLING_FORWARD, "goes back twice"
    if decision.error.code is UpgradeErrorCode.CREDENTIAL_REFUSED:
        assert not decision.instances  # kept for the end of the batch; the successor is deleted
        return
    assert upgrade.policy.rollback_failed_instances_on_policy_breach
    assert decision.instances
    assert set(decision.instances) <= _find_left_behind(scale_set, upgrade)


def _check_nobody_is_left_behind(scale_set: ScaleSet, decision: EndUpgrade) -> None:
    upgrade = scale_set.upgrade
    assert upgrade is not None
    if decision.error is None or decision.error.code is UpgradeErrorCode.CREDENTIAL_REFUSED:
        return
    if upgrade.code is UpgradeCode.ROLLING_BACK:
        assert decision.error == upgrade.error, "ends for another reason than it went back for"
    elif upgrade.policy.rollback_failed_instances_on_policy_breach:
        assert not _find_left_behind(scale_set, upgrade), "ends and leaves behind what failed"


def _find_left_behind(scale_set: ScaleSet, upgrade: Upgrade) -> set[str]:
    """Failed on the disk of the upgrade, still not in service on it, the disk of before at hand."""
    found = set()
    has_undrain = scale_set.spec.upgrade_policy.hooks.undrain is not None
    for member in upgrade.members:
        instance = next((i for i in scale_set.instances if i.name == member.instance), None)
        if instance is None or instance.wanted is not Wanted.RUNNING:
            continue
        # Healthy is not enough: one whose undrain failed serves nobody.
        is_out = has_undrain and instance.out_of_service_since is not None
        is_ill = is_out or not _serves(scale_set, instance) or is_restart_asked(instance)
        is_ours = (
            member.state is MemberState.FAILED
            and member.replaced_by is None
            and instance.generation == member.to_generation
        )
        has_previous = len(instance.generations) > 1
        if is_ill and is_ours and has_previous and not _has_refused_credential(instance):
            found.add(instance.name)
    return found


def _check_approval(upgrade: Upgrade, batch: BeginBatch, now: datetime) -> None:
    policy = upgrade.control.approval
    if policy is None or (batch.batch > 1 and policy.before is ApprovalScope.FIRST_BATCH):
        return
    is_silent = upgrade.approval_asked_at and now >= upgrade.approval_asked_at + policy.timeout
    is_consent = is_silent and policy.on_timeout is ApprovalDefault.APPROVE
    assert upgrade.approved_batch == batch.batch or is_consent, "a batch begins unapproved"


def _check_silence(upgrade: Upgrade, now: datetime) -> None:
    policy = upgrade.control.approval
    assert policy is not None, "nobody had to approve"
    assert policy.on_timeout is ApprovalDefault.REJECT, "silence was no rejection"
    assert upgrade.paused_at is None, "silence counts in a pause"
    asked_at = upgrade.approval_asked_at
    assert asked_at is not None, "nobody was asked"
    assert now >= asked_at + policy.timeout, "rejected before the time to answer was over"


def _check_canary(scale_set: ScaleSet, batch: BeginBatch, now: datetime) -> None:
    upgrade = scale_set.upgrade
    assert upgrade is not None
    canary = upgrade.control.canary
    if canary is None:
        return
    if batch.batch == 1:
        assert len(batch.instances) <= canary.instances, "more canaries than asked for"
    if batch.batch == 2:
        for member in upgrade.members:
            if member.state is not MemberState.SUCCEEDED or not member.healthy_at:
                continue
            instance = next((i for i in scale_set.instances if i.name == member.carrier), None)
            if instance is None or instance.wanted is not Wanted.RUNNING:
                continue
            assert _serves(scale_set, instance), "goes on beside an ill canary"
            since = max(member.healthy_at, instance.health.since or member.healthy_at)
            assert now - since >= canary.bake_time, "a canary had not baked long enough"


def _is_in_window(scale_set: ScaleSet, now: datetime) -> bool:
    """By the wall clock: with offsets that shift in summer, `now` is in a window of that day."""
    windows = scale_set.spec.upgrade_policy.maintenance_windows
    openings = find_openings(windows, scale_set.clocks, now)
    return not windows or any(o.begins <= now < o.ends for o in openings)


def _check_phase(scale_set: ScaleSet, upgrade: Upgrade, taken: set[str]) -> None:
    """Phases in order, one at a time; nobody who asked to be left out; nobody still starting."""
    last = 2**31
    phases = {m.instance: last if m.phase is None else m.phase for m in upgrade.members}
    skips = {m.instance for m in upgrade.members if m.skips_upgrade}
    assert not taken & skips, "an instance that asked to be skipped is taken"
    assert len({phases[name] for name in taken}) == 1, "a batch spans phases"
    wanted = {i.name for i in scale_set.instances if i.wanted is Wanted.RUNNING}
    open_before = [
        m.instance
        for m in upgrade.members
        if m.state is MemberState.PENDING
        and m.instance in wanted - skips
        and phases[m.instance] < min(phases[name] for name in taken)
        and _find(scale_set, m.instance).current.image_digest != upgrade.target_digest
    ]
    assert not open_before, "a phase begins before the one before it is through"
    for name in taken:
        instance = _find(scale_set, name)
        source = scale_set.models[instance.current.model_revision].health.application_health
        if source is not None and source.is_rich and is_through(scale_set, instance):
            is_open = instance.health.state is HealthState.INITIALIZING
            assert not is_open, "taken in its grace period"


def _check_move(scale_set: ScaleSet, move: MoveMember, now: datetime) -> None:
    upgrade = scale_set.upgrade
    assert upgrade is not None
    member = next(m for m in upgrade.members if m.instance == move.instance)
    if move.state in {MemberState.SKIPPED, MemberState.PENDING}:
        return
    if member.replaced_by is not None:
        _check_move_of_pair(scale_set, upgrade, member, move, now)
        return
    instance = next((i for i in scale_set.instances if i.name == move.instance), None)
    if instance is None or instance.wanted is not Wanted.RUNNING:
        assert move.state is MemberState.ROLLBACK_FAILED
        return
    if move.is_untouched:
        assert move.state is MemberState.FAILED
        assert instance.hook_failure is not None, "given back what it had, though nothing failed"
        assert member.stopped_at is None
        return
    if move.state in {MemberState.SUCCEEDED, MemberState.ROLLED_BACK}:
        is_owed = scale_set.spec.upgrade_policy.hooks.undrain is not None
        assert not (is_owed and instance.out_of_service_since), "counts, but is out of service"
    if move.state is MemberState.SUCCEEDED:
        assert instance.generation == member.to_generation
        assert instance.current.image_digest == upgrade.target_digest
        assert instance.current.model_revision >= upgrade.model_revision
        assert _serves(scale_set, instance)
        assert not is_restart_asked(instance), "it has not begun with its new model"
    if move.state is MemberState.ROLLED_BACK:
        assert instance.generation == member.from_generation
        assert instance.current.image_version == member.from_version
        assert _serves(scale_set, instance)
    if move.state in {MemberState.ROLLING_BACK, MemberState.FAILED}:
        is_refused = _has_refused_credential(instance)
        assert (move.state is MemberState.ROLLING_BACK) == (upgrade.restores and not is_refused)
        assert instance.current.evidence_at is not None, "moved before the evidence was saved"
        assert instance.find_generation(member.from_generation or 0), "the way back is gone"
    has_given_up = move.state.has_failed and move.state is not MemberState.ROLLED_BACK
    if has_given_up and instance.current.failure is None and member.settled_at:
        late = now - member.settled_at >= upgrade.health_timeout
        ended = [r for r in instance.current.extensions if not r.has_succeeded]
        is_off = instance.domain.power is not Power.RUNNING
        is_refused_back = instance.hook_failure is not None
        assert late or ended or is_off or is_refused_back, "given up before its time was over"


def _check_move_of_pair(
    scale_set: ScaleSet, upgrade: Upgrade, member: Member, move: MoveMember, now: datetime
) -> None:
    old = _find(scale_set, member.instance)
    assert old.wanted is Wanted.RUNNING
    assert old.generation == member.from_generation, "who is replaced was touched"
    if move.state is MemberState.ROLLED_BACK:
        assert _serves(scale_set, old)
    if not member.state.is_moving:  # at a limit, after its end
        assert (member.state, move.state) == (MemberState.FAILED, MemberState.ROLLED_BACK)
        return
    new = _find(scale_set, member.carrier)
    if move.state is MemberState.SUCCEEDED:
        assert new.current.image_digest == upgrade.target_digest
        assert new.current.model_revision >= upgrade.model_revision
        assert _serves(scale_set, new)
        return
    is_refused = _has_refused_credential(new)
    assert (move.state is MemberState.FAILED) == (is_refused or not upgrade.restores)
    assert new.current.evidence_at is not None, "gone before the evidence was saved"
    if new.current.failure is None and member.settled_at:
        late = now - member.settled_at >= upgrade.health_timeout
        ended = [r for r in new.current.extensions if not r.has_succeeded]
        is_unserved = new.hook_failure is not None  # its undrain has failed
        is_off = new.domain.power is not Power.RUNNING
        assert late or ended or is_unserved or is_off, "given up too early"


def _find(scale_set: ScaleSet, name: str) -> Instance:
    return next(i for i in scale_set.instances if i.name == name)


def _has_refused_credential(instance: Instance) -> bool:
    started = instance.current.started_at
    return any(
        run.fault is ExtensionFault.CREDENTIAL and started is not None and run.started_at > started
        for run in instance.current.extensions
    )


def _serves(scale_set: ScaleSet, instance: Instance) -> bool:
    return is_through(scale_set, instance) and instance.health.state is HealthState.HEALTHY


def _is_ill(scale_set: ScaleSet, instance: Instance) -> bool:
    current = instance.current
    if instance.domain.power is Power.STOPPED:
        asked = instance.restart_asked_at
        return current.started_at is not None and (asked is None or asked <= current.started_at)
    # Until its extensions are through, it is on its way, whatever its application says.
    return is_through(scale_set, instance) and instance.health.state is HealthState.UNHEALTHY


def is_restart_asked(instance: Instance) -> bool:
    asked, started = instance.restart_asked_at, instance.current.started_at
    return asked is not None and (started is None or asked > started)


def is_through(scale_set: ScaleSet, instance: Instance) -> bool:
    extensions = scale_set.models[instance.current.model_revision].extensions
    return instance.is_settled and {e.name for e in extensions} <= {
        run.name for run in instance.current.extensions if run.exit_code == 0
    }
