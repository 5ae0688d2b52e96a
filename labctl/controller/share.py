"""What the scale sets of one process take of the host, so that together they stay within it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from labctl.model.plan import AwaitReady, Plan, ScaleSet, Start


@dataclass(slots=True)
class Share:
    """Boots and memory by scale set. Safe to share between threads."""

    _planning: threading.Lock = field(default_factory=threading.Lock)
    _boots: dict[str, int] = field(default_factory=dict)
    _memory: dict[str, int] = field(default_factory=dict)  # bytes of running instances

    @contextmanager
    def planning(self, view: ScaleSet) -> Iterator[ScaleSet]:
        """Yield `view` with the boots that other scale sets leave; one plans at a time.

        Call `take` with the plan before the block ends: two that plan at the same moment must not
        both take the last boot.
        """
        with self._planning:
            others = sum(count for name, count in self._boots.items() if name != view.name)
            room = max(0, view.capacity.boots_at_once - others)
            yield replace(view, capacity=replace(view.capacity, boots_at_once=room))

    def take(self, name: str, plan: Plan) -> None:
        """Record how many boots a plan begins or waits for."""
        self._boots[name] = sum(isinstance(a, Start | AwaitReady) for a in plan.actions)

    def promise(self, name: str, memory: int) -> int:
        """Record the memory of the running instances; returns that of all other scale sets."""
        self._memory[name] = memory
        return sum(size for other, size in list(self._memory.items()) if other != name)

    def drop(self, name: str) -> None:
        """Nobody works on this scale set any more."""
        self._boots.pop(name, None)
        self._memory.pop(name, None)
