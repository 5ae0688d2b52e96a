"""One instance together with what bears on it: its model and its part in the running upgrade."""

from dataclasses import dataclass
from datetime import datetime

from labctl.model.hook import NO_HOOKS, Hooks
from labctl.model.instance import Generation, Instance, Power, Wanted
from labctl.model.placement import Placement, place
from labctl.model.plan import ScaleSet, Setback
from labctl.model.repair import Repair
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import Member, MemberState, Upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the rules of one instance look at."""

    instance: Instance
    model: ScaleSetSpec  # the model that made the generation it should boot
    newest: ScaleSetSpec  # the newest model of the scale set
    member: Member | None  # its part in the upgrade that is running
    repair: Repair | None = None  # the repair that it is to become healthy by
    may_go_back: bool = False  # it failed, and a limit that is exceeded would restore it
    hooks: Hooks = NO_HOOKS  # of the newest spec
    is_set_deleting: bool = False
    setback: Setback | None = None  # the host does not let its next step through

    @property
    def current(self) -> Generation:
        """The generation that it should boot."""
        return self.instance.current

    @property
    def is_counted(self) -> bool:
        """Does it count in totals? What its user stopped or deletes does not."""
        return self.instance.wanted is Wanted.RUNNING

    @property
    def placement(self) -> Placement:
        """Its zone and domains."""
        return place(self.newest, self.instance.ordinal)

    @property
    def is_moving(self) -> bool:
        """Is its OS disk being replaced or restored, and not yet proven?"""
        # Who waits for a successor goes on as always; it is the successor that has to prove itself.
        member = self.member
        return (
            member is not None and member.state.is_moving and self.instance.name == member.carrier
        )

    @property
    def is_powered(self) -> bool:
        """Does an emulator exist for it, whatever the guest in it does?"""
        return self.instance.domain.power in {Power.RUNNING, Power.PAUSED, Power.CRASHED}

    @property
    def tried_at(self) -> datetime | None:
        """When the present attempt began; failures from before it are history."""
        moments = [
            self.instance.restart_asked_at,
            self.instance.rerun_custom_data_asked_at,
            self.current.started_at,
        ]
        if self.member is not None and self.member.state is MemberState.ROLLING_BACK:
            # The evidence is saved right before the restore begins; a failure of the previous
            # disk from before that must not count against the restore.
            moments += [
                g.evidence_at
                for g in self.instance.generations
                if g.number == self.member.to_generation
            ]
        return max((moment for moment in moments if moment is not None), default=None)

    @property
    def errand(self) -> str:
        """Why its OS disk is handled, for reasons."""
        image = self.current.image_version
        if self.member is None or not self.is_moving:
            return f"image {image}" if self.repair is None else f"repair {self.repair.id}: {image}"
        if self.member.state is MemberState.ROLLING_BACK:
            return f"batch {self.member.batch}: back to {image}"
        member = self.member
        comes_for = f", comes for {member.instance}" if member.replaced_by else ""
        if member.from_version == image:
            return f"batch {member.batch}: model {self.current.model_revision}{comes_for}"
        return f"batch {member.batch}: {member.from_version} -> {image}{comes_for}"


def survey(scale_set: ScaleSet) -> tuple[Situation, ...]:
    """Every instance of the scale set in its situation, by ordinal."""
    upgrade = scale_set.upgrade
    members = {name: m for m in upgrade.members for name in m.pair} if upgrade else {}
    restorable = _find_restorable(upgrade)
    repairs = {r.ordinal: r for r in scale_set.repairs if r.is_open}
    return tuple(
        Situation(
            instance=instance,
            model=scale_set.models[instance.current.model_revision],
            newest=scale_set.spec,
            member=members.get(instance.name),
            repair=repairs.get(instance.ordinal),
            may_go_back=instance.name in restorable,
            hooks=scale_set.spec.upgrade_policy.hooks,
            is_set_deleting=scale_set.is_deleting,
            setback=scale_set.setbacks.get(instance.name),
        )
        for instance in sorted(scale_set.instances, key=lambda i: i.ordinal)
    )


def _find_restorable(upgrade: Upgrade | None) -> frozenset[str]:
    """Who failed in the running upgrade and goes back if that is stopped by a limit."""
    if upgrade is None or upgrade.code.is_final:
        return frozenset()
    if not upgrade.policy.rollback_failed_instances_on_policy_breach:
        return frozenset()
    return frozenset(
        m.instance
        for m in upgrade.members
        if m.state is MemberState.FAILED and m.replaced_by is None
    )


def has_served(instance: Instance) -> bool:
    """Has it been ready before, on any OS disk?

    A stop clears `started_at` and `ready_at`, so what only an instance that was ready can have
    counts too: a later disk, extension runs, a wish of its user to stop or restart it.
    """
    return (
        instance.generation > 1
        or len(instance.generations) > 1
        or instance.current.ready_at is not None
        or bool(instance.current.extensions)
        or instance.restart_asked_at is not None
        or instance.wanted is Wanted.STOPPED
    )
