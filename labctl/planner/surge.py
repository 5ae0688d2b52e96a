"""How a batch brings new instances first, which then take the place of the old ones (maxSurge)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count

from labctl.model.hook import HookKind
from labctl.model.instance import Generation, Instance, Wanted
from labctl.model.placement import find_spot
from labctl.model.plan import Decision, Hold, MoveMember, RemoveInstance, Replacement, ScaleSet
from labctl.model.upgrade import Member, MemberState, Upgrade
from labctl.planner.health import judge
from labctl.planner.situation import Situation

_MIB = 2**20
_DRAIN_TRIES = 3  # within three minutes
_SPACE = 512 * _MIB  # what the OS disk of a new instance is taken to grow to at first

# web_0 is in a batch. web_10 is created on the target and becomes healthy, while web_0 serves. In
# one commit web_0 has succeeded and is to be deleted. If web_10 fails, it is deleted instead, and
# web_0 was never touched. Either way there is one more than the capacity, and never one less.


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge:
    """How the next batch goes: who gets a successor, and why others do not."""

    replacements: tuple[Replacement, ...]
    reason: str = ""  # for the reason of the batch; begins with a semicolon


def plan_surge(
    scale_set: ScaleSet,
    upgrade: Upgrade,
    situations: Sequence[Situation],
    batch: Sequence[Situation],
) -> Surge:
    """Replace all of the batch that may be, or none where the host has no room for all of them."""
    if not upgrade.policy.max_surge:
        return Surge(replacements=())
    obstacles = {s.instance.name: _find_obstacle(scale_set, upgrade, s) for s in batch}
    able = [s.instance for s in batch if obstacles[s.instance.name] is None]
    told = "".join(f"; {name} in place: {why}" for name, why in obstacles.items() if why)
    ordinals = _choose_ordinals(scale_set, upgrade, able)
    shortage = _find_shortage(scale_set, upgrade, situations, ordinals)
    if shortage is not None:
        return Surge(replacements=(), reason=f"{told}; in place: {shortage}")
    replacements = tuple(
        Replacement(instance=instance.name, ordinal=ordinal)
        for instance, ordinal in zip(able, ordinals, strict=True)
    )
    pairs = ", ".join(f"{scale_set.name}_{r.ordinal} for {r.instance}" for r in replacements)
    return Surge(replacements=replacements, reason=(f"; {pairs}" if pairs else "") + told)


def _find_obstacle(scale_set: ScaleSet, upgrade: Upgrade, situation: Situation) -> str | None:
    """Why this instance has to be upgraded in place."""
    if situation.instance.is_protected:
        return "protected from scale-in"
    # The spec refuses data disks beside maxSurge; it may have been another when this one was made.
    if situation.model.data_disks or scale_set.models[upgrade.model_revision].data_disks:
        return "its data disks would stay behind"
    return None


def _choose_ordinals(
    scale_set: ScaleSet, upgrade: Upgrade, leaving: Sequence[Instance]
) -> list[int]:
    """The lowest of the same zone and domains that nobody has, nor ever had in this upgrade."""
    # 10 instances: the first upgrade gives web_10 to web_19, the next one web_0 to web_9 again.
    # With zones a and b, web_3 of zone b gets web_11, so that the zones stay as even as they are.
    taken = {i.ordinal for i in scale_set.instances} | {m.ordinal for m in upgrade.members}
    taken |= {_ordinal_of(m.replaced_by) for m in upgrade.members if m.replaced_by}
    chosen: list[int] = []
    for instance in leaving:
        where = find_spot(scale_set.spec, instance.ordinal)
        free = (n for n in count() if n not in taken and find_spot(scale_set.spec, n) == where)
        chosen.append(next(free))
        taken.add(chosen[-1])
    return chosen


def _find_shortage(
    scale_set: ScaleSet,
    upgrade: Upgrade,
    situations: Sequence[Situation],
    ordinals: Sequence[int],
) -> str | None:
    """What the host lacks for new instances with these ordinals beside all that there are."""
    if not ordinals:
        return None
    capacity, model = scale_set.capacity, scale_set.models[upgrade.model_revision]
    number = len(ordinals)
    memory = number * (model.size.memory + capacity.overhead_per_instance)
    # Who is wanted and off, or still to be started, will take its part first.
    expected = sum(
        s.model.size.memory + capacity.overhead_per_instance
        for s in situations
        if s.is_counted and not s.is_powered
    )
    free = max(capacity.free_memory - expected, 0)
    if memory > free:
        return (
            f"{memory // _MIB} MiB of memory are needed for {number} more, {free // _MIB} are free"
        )
    space = number * _SPACE
    if space > capacity.free_space:
        free = capacity.free_space
        return f"{space // _MIB} MiB on disk are needed for {number} more, {free // _MIB} are free"
    room = model.network.room
    if room is not None and max(ordinals) >= room:
        return f"the subnet has {room} addresses, none for {scale_set.name}_{max(ordinals)}"
    return None


def await_departures(
    scale_set: ScaleSet, upgrade: Upgrade, situations: Sequence[Situation]
) -> Hold | None:
    """The next batch begins when what was replaced is gone, and its room with it."""
    if not upgrade.policy.max_surge:
        return None
    names = [s.instance.name for s in situations if s.instance.wanted is Wanted.DELETED]
    if not names:
        return None
    reason = f"the next batch waits for the deletion of {', '.join(names)}, and for its memory"
    return Hold(subject=scale_set.name, reason=reason)


def find_stuck_departure(upgrade: Upgrade, situations: Sequence[Situation]) -> str | None:
    """Say so when one that was replaced cannot be drained: in place that would be a failure, too.

    It goes on serving beside its successor, and is tried again after the upgrade, less and less
    often; the next batch would wait for its room without end.
    """
    if not upgrade.policy.max_surge:
        return None
    for situation in situations:
        failure = situation.instance.hook_failure
        if situation.instance.wanted is not Wanted.DELETED or failure is None:
            continue
        if failure.kind is HookKind.DRAIN and failure.tries >= _DRAIN_TRIES:
            name = situation.instance.name
            return f"{name}, which was replaced, cannot be drained: {failure.message}"
    return None


def release_pair(
    upgrade: Upgrade, member: Member, situations: Sequence[Situation]
) -> tuple[Decision, ...]:
    """Give up a successor that is not needed any more, or whose forerunner must stay."""
    instances = {s.instance.name: s.instance for s in situations}
    old, new = instances.get(member.instance), instances.get(member.carrier)
    reason = _find_parting(member, old, new)
    if reason is None:
        return ()
    move = MoveMember(
        upgrade=upgrade.id, instance=member.instance, state=MemberState.SKIPPED, reason=reason
    )
    if new is None or new.wanted is Wanted.DELETED:
        return (move,)
    return (move, RemoveInstance(instance=new.name, reason=f"{member.instance}: {reason}"))


def _find_parting(member: Member, old: Instance | None, new: Instance | None) -> str | None:
    if old is None or old.wanted is Wanted.DELETED:
        return "deleted meanwhile"
    if old.wanted is Wanted.STOPPED:
        return "stopped by its user meanwhile"
    if old.is_protected:
        return "protected meanwhile"
    if new is None or new.wanted is Wanted.DELETED:
        return f"{member.carrier}, which came for it, was deleted meanwhile"
    if new.wanted is Wanted.STOPPED:
        return f"{member.carrier}, which came for it, was stopped by its user"
    return None


def find_stranded(
    scale_set: ScaleSet, upgrade: Upgrade, situation: Situation, now: datetime
) -> MoveMember | Hold | None:
    """Not for ever: a successor whose memory was taken by others is given up after a while."""
    # It had room when its batch began. Since then somebody scaled out to the limits of the host.
    # web_0 is pending again, and its next batch, short of memory, replaces its disk in place.
    member, instance = situation.member, situation.instance
    if member is None or member.replaced_by is None or member.admitted_at is None:
        return None
    is_off = not situation.is_powered and situation.current.started_at is None
    capacity = scale_set.capacity
    needs = situation.model.size.memory + capacity.overhead_per_instance
    if not is_off or needs <= capacity.free_memory:
        return None
    until = member.admitted_at + upgrade.health_timeout
    whole = f"{upgrade.health_timeout.total_seconds():g} s"
    if now < until:
        reason = f"{instance.name} waits for memory, {whole} at most; then it is given up"
        return Hold(subject=scale_set.name, reason=reason, until=until)
    reason = f"no memory for {instance.name} within {whole}"
    return MoveMember(
        upgrade=upgrade.id, instance=member.instance, state=MemberState.PENDING, reason=reason
    )


def conclude(
    move: MoveMember, situation: Situation, situations: Sequence[Situation]
) -> tuple[Decision, ...]:
    """What the verdict on a successor means for both of the pair; others just move."""
    member = situation.member
    if member is None or member.replaced_by is None:
        return (move,)
    new, old = situation.instance.name, member.instance
    if move.state is MemberState.SUCCEEDED:
        gone = RemoveInstance(instance=old, reason=f"{new} is {move.reason} in its place")
        return (replace(move, reason=f"{new} is {move.reason}"), gone)
    if move.state is MemberState.PENDING:
        return (move, RemoveInstance(instance=new, reason=move.reason))
    forerunner = next(s for s in situations if s.instance.name == old)
    verdict = judge(forerunner)
    state = move.state
    if state is MemberState.ROLLING_BACK:  # nothing has to be put back
        state = MemberState.ROLLED_BACK if verdict.is_healthy else MemberState.ROLLBACK_FAILED
    reason = f"{new}: {move.reason}; {old} was not touched and is {verdict.state.lower()}"
    gone = RemoveInstance(
        instance=new, reason=f"it failed, its evidence is saved, and {old} goes on in its place"
    )
    return (replace(move, state=state, reason=reason), gone)


def find_untouched(upgrade: Upgrade, situations: Sequence[Situation]) -> tuple[MoveMember, ...]:
    """At a limit that puts back what failed: those whose successor failed are where they were."""
    return tuple(
        MoveMember(
            upgrade=upgrade.id,
            instance=member.instance,
            state=MemberState.ROLLED_BACK,
            reason=member.message,
        )
        for s in situations
        if (member := s.member) is not None
        and member.state is MemberState.FAILED
        and member.replaced_by is not None
        and s.instance.name == member.instance
        and s.is_counted
        and judge(s).is_healthy
    )


def find_newcomers(scale_set: ScaleSet) -> frozenset[str]:
    """Successors that have not proven themselves; they count in no total."""
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.code.is_final:
        return frozenset()
    return frozenset(m.replaced_by for m in upgrade.members if m.replaced_by and m.state.is_moving)


def find_reserved(scale_set: ScaleSet) -> frozenset[int]:
    """Ordinals that a running upgrade tells of; what is created meanwhile gets others."""
    upgrade = scale_set.upgrade
    if upgrade is None or upgrade.code.is_final:
        return frozenset()
    pairs = [m for m in upgrade.members if m.replaced_by]
    return frozenset(m.ordinal for m in pairs) | {_ordinal_of(m.carrier) for m in pairs}


def make_successor(scale_set: ScaleSet, ordinal: int, now: datetime) -> Instance:
    """The new instance, not yet prepared, on the target of the running upgrade."""
    upgrade = scale_set.upgrade
    assert upgrade is not None  # noqa: S101 - a batch belongs to an upgrade
    first = Generation(
        number=1,
        image_version=upgrade.target_version,
        image_digest=upgrade.target_digest,
        model_revision=upgrade.model_revision,
        prepared=False,
    )
    return Instance(
        name=f"{scale_set.name}_{ordinal}",
        ordinal=ordinal,
        wanted=Wanted.RUNNING,
        generation=1,
        generations=(first,),
        # It serves nobody until the hook has put it into service, like one that was replaced.
        out_of_service_since=None if scale_set.spec.upgrade_policy.hooks.undrain is None else now,
        created_at=now,
    )


def admit_pair(
    member: Member, old: Instance, new: Instance, *, batch: int, now: datetime
) -> Member:
    """The member from the beginning of its batch on."""
    return replace(
        member,
        state=MemberState.IN_PROGRESS,
        batch=batch,
        replaced_by=new.name,
        from_generation=old.generation,
        to_generation=new.generation,
        from_version=old.current.image_version,
        admitted_at=now,
    )


def dissolve_pair(member: Member, reason: str) -> Member:
    """The member when its successor was given up before it was switched on: pending again."""
    return replace(
        member,
        state=MemberState.PENDING,
        batch=None,
        replaced_by=None,
        from_generation=None,
        to_generation=None,
        admitted_at=None,
        message=reason,
    )


def _ordinal_of(name: str) -> int:
    return int(name.rpartition("_")[2])
