"""What a running upgrade waits for, read off the store: no instance and no hypervisor is asked."""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from labctl.controller.lock import is_held
from labctl.controller.zones import load_clocks
from labctl.model.instance import DomainFacts, Instance, Power
from labctl.model.plan import Action, Hold, HostCapacity
from labctl.planner import find_upgrade_steps
from labctl.settings import Settings
from labctl.store.scale_sets import load_view

_BOUNDLESS = HostCapacity(boots_at_once=2**20, free_memory=2**60, overhead_per_instance=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What keeps an upgrade where it is: nobody, steps that are under way, or a reason to wait."""

    is_orphaned: bool = False  # no process works on it
    actions: tuple[Action, ...] = ()
    holds: tuple[Hold, ...] = ()


def find_waits(connection: Connection, settings: Settings, name: str, now: datetime) -> Waits:
    """The answer for the upgrade of a scale set that is running; empty when none is."""
    view = load_view(connection, name, capacity=_BOUNDLESS)
    if view.upgrade is None:
        return Waits()
    assumed = tuple(map(_assume_as_recorded, view.instances))
    view = replace(view, instances=assumed, clocks=load_clocks(view.spec, now))
    steps = find_upgrade_steps(view, now)
    return Waits(is_orphaned=not is_held(settings, name), actions=steps.actions, holds=steps.holds)


def _assume_as_recorded(instance: Instance) -> Instance:
    """Whoever works on it writes each start and stop down; what differs is about to be written."""
    started = [g.number for g in instance.generations if g.started_at is not None]
    domain = DomainFacts(
        generation=max(started, default=instance.generation),
        power=Power.RUNNING if started else Power.STOPPED,
    )
    return replace(instance, domain=domain)
