"""What happens next to a scale set: `plan`."""

from collections.abc import Mapping
from datetime import datetime

from labctl.model.plan import Action, Hold, Plan, RunHook, ScaleSet, Setback
from labctl.planner.boot import admit_boots
from labctl.planner.hooks import await_next_try
from labctl.planner.instance import find_next_step
from labctl.planner.repairs import plan_repairs
from labctl.planner.rollout import plan_rollout
from labctl.planner.scale import plan_scaling
from labctl.planner.situation import Situation, survey
from labctl.planner.upgrade import plan_upgrade


def plan(scale_set: ScaleSet, now: datetime) -> Plan:
    """Either decisions or actions, with the holds beside them; never both.

    Decisions change what the actions would be, so they come alone: record all of them in one
    commit and ask again at once. At most one action names an instance; actions may run side by
    side. A hold with `until` asks for another look at that time; the others end by an event.
    """
    scaling = plan_scaling(scale_set)
    if scaling.decisions:
        return scaling
    situations = survey(scale_set)
    rollout = plan_rollout(scale_set, situations, now)
    if rollout.decisions:
        return rollout
    upgrade = plan_upgrade(scale_set, situations, now)
    if upgrade.decisions:
        return Plan(decisions=upgrade.decisions, holds=upgrade.holds)
    repairs = plan_repairs(scale_set, situations, now)
    if repairs.decisions:
        return repairs
    evidence = {action.instance: action for action in upgrade.actions}
    waits = {hold.subject: hold for hold in (*repairs.holds, *upgrade.holds)}
    steps = [
        (
            s,
            _wait_after(
                scale_set.setbacks, evidence.get(s.instance.name) or _find_step(s, waits, now), now
            ),
        )
        for s in situations
    ]
    admitted = admit_boots(steps, scale_set.capacity)
    set_holds = tuple(h for h in upgrade.holds if h.subject == scale_set.name)
    return Plan(
        actions=tuple(s for s in admitted if s is not None and not isinstance(s, Hold)),
        holds=(
            *scaling.holds,
            *rollout.holds,
            *set_holds,
            *(s for s in admitted if isinstance(s, Hold)),
        ),
    )


def _wait_after(
    setbacks: Mapping[str, Setback], step: Action | Hold | None, now: datetime
) -> Action | Hold | None:
    """A step that the host did not let through waits alone, and takes no boot from the others."""
    setback = None if step is None or isinstance(step, Hold) else setbacks.get(step.instance)
    if setback is None or step is None or isinstance(step, Hold):
        return step
    if type(step).__name__ != setback.step or now >= setback.until:
        return step
    left = (setback.until - now).total_seconds()
    reason = f"{setback.step} failed, tried again in {left:.0f} s: {setback.reason}"
    return Hold(subject=step.instance, reason=reason, until=setback.until)


def _find_step(situation: Situation, waits: dict[str, Hold], now: datetime) -> Action | Hold | None:
    """The instance's own step; where it has none, what the upgrade waits for."""
    step = find_next_step(situation)
    if isinstance(step, RunHook):
        return await_next_try(situation, step, now) or step
    if step is None or isinstance(step, Hold):
        return waits.get(situation.instance.name, step)
    return step
