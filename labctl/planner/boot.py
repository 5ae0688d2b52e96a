"""Which instances may be switched on now: boots at once, and memory."""

from collections.abc import Sequence

from labctl.model.hook import HookKind
from labctl.model.instance import Power
from labctl.model.plan import (
    Action,
    AwaitReady,
    Define,
    Hold,
    HostCapacity,
    Prepare,
    RunHook,
    Start,
    Stop,
)
from labctl.planner.situation import Situation, has_served

MIB = 2**20

Step = Action | Hold | None


def admit_boots(
    steps: Sequence[tuple[Situation, Step]], capacity: HostCapacity
) -> tuple[Step, ...]:
    """Turn each step that leads to a boot into a hold where the host has no room for it.

    Everything else (preparing, defining) passes, so that it overlaps with the boots of others.
    Instances that were in service go before new ones, because they are missed:
    1. those that are off, also while they are still being redefined: they keep their room;
    2. those that must be stopped first: stopped only when they may boot right after;
    3. new ones, by ordinal, once they are defined.
    """
    # Example: 2 boots at once, web_0 boots, web_1 and web_2 are defined: web_1 starts, web_2 waits.
    room = _Room(capacity, booting=sum(_is_booting(s, step) for s, step in steps))
    admitted: dict[str, Step] = {}
    for wave in (_is_returning, _is_leaving, _is_new):
        for situation, step in steps:
            if wave(situation, step):
                needs = 0 if wave is _is_leaving else _memory(situation, capacity)
                refusal = room.take(needs)
                if refusal and (_is_drain(step) or isinstance(step, Start | Stop)):
                    admitted[situation.instance.name] = Hold(
                        subject=situation.instance.name, reason=f"waiting {refusal}"
                    )
    return tuple(admitted.get(situation.instance.name, step) for situation, step in steps)


class _Room:
    """What is left of the host while one plan is made."""

    def __init__(self, capacity: HostCapacity, *, booting: int) -> None:
        self._boots_at_once = capacity.boots_at_once
        self._booting = booting
        self._free_memory = capacity.free_memory

    def take(self, memory: int) -> str:
        """Take the room of one boot; otherwise say what it waits for."""
        if self._booting >= self._boots_at_once:
            return f"for its turn: {self._booting} of {self._boots_at_once} boots at once are taken"
        if memory > self._free_memory:
            free = max(self._free_memory, 0) // MIB
            return f"for memory: needs {memory // MIB} MiB, free {free} MiB"
        self._booting += 1
        self._free_memory -= memory
        return ""


def _is_booting(situation: Situation, step: Step) -> bool:
    """Is it between power-on and ready? One that failed on the way no longer is."""
    is_unrecorded = isinstance(step, Start) and situation.is_powered
    return is_unrecorded or isinstance(step, AwaitReady)


def _is_returning(situation: Situation, step: Step) -> bool:
    is_off = situation.instance.domain.power in {Power.STOPPED, Power.CRASHED}
    return is_off and has_served(situation.instance) and isinstance(step, Prepare | Define | Start)


def _is_leaving(situation: Situation, step: Step) -> bool:
    is_on = situation.instance.domain.power in {Power.RUNNING, Power.PAUSED}
    return is_on and situation.is_counted and (_is_drain(step) or isinstance(step, Stop))


def _is_drain(step: Step) -> bool:
    """Is it the beginning of a stop? Nobody is taken out of service to wait for a boot then."""
    return isinstance(step, RunHook) and step.kind is HookKind.DRAIN


def _is_new(situation: Situation, step: Step) -> bool:
    return (
        isinstance(step, Start) and not has_served(situation.instance) and not situation.is_powered
    )


def _memory(situation: Situation, capacity: HostCapacity) -> int:
    return situation.model.size.memory + capacity.overhead_per_instance
