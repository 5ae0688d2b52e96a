"""What the measurements share: a lab, its images, the floor, and how runs are repeated."""

import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.controller.desired import NO_CAPACITY
from labctl.controller.lab import Lab as Host
from labctl.controller.lab import open_lab
from labctl.model.plan import ScaleSet
from labctl.settings import load_settings
from labctl.store.database import Database
from labctl.store.instances import load_identities
from labctl.store.scale_sets import load_view
from tests.bench.floor import Floor, Template, read_template
from tests.bench.sampled import Run, host_busy, host_load, processor_of_guests, run_sampled
from tests.bench.table import Row
from tests.e2e.harness import HEALTH, Lab

OLD, NEW = "1.0.0", "1.1.0"
BUSY = 0.2  # cores that others may use before a run counts as disturbed; libvirtd takes 0.1
SETTLE = 1.0  # seconds of quiet before each timed run
_MOST = 3  # times as many runs as wanted, when others disturb them


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One timed run."""

    seconds: float
    others: float  # cores that were busy with something else meanwhile

    @property
    def is_disturbed(self) -> bool:
        return self.others > BUSY


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """What the measurements share: a lab, its images, the template of the floor."""

    def __init__(self, lab: Lab, *, quick: bool, patience: float) -> None:
        self.lab = lab
        self.quick = quick
        self.patience = patience
        self.name = f"bench-{os.getpid()}"
        self.settings = load_settings(state_dir=lab.state_dir)
        self.rows: list[Row] = []
        self._images: dict[str, str] = {}
        self._template: tuple[Host, ScaleSet, Template] | None = None

    @property
    def repeats(self) -> int:
        return 1 if self.quick else 3

    def build_images(self) -> None:
        for version in (OLD, NEW):
            self.lab.build(version, "--publish")
        for row in self.lab.json("image", "list"):
            self._images[row["version"]] = row["digest"]

    def digest(self, version: str) -> str:
        return self._images[version]

    def spec(self, count: int, **values: Any) -> Path:
        return self.lab.spec(
            self.name, **{"capacity": count, "health": HEALTH, "timeouts": {}, **values}
        )

    def apply(self, count: int, *, expect: int = 0, **values: Any) -> Run:
        """One timed `labctl apply`, from the start of the program to its end."""
        return self.time("apply", str(self.spec(count, **values)), expect=expect)

    def time(self, *words: str, expect: int = 0) -> Run:
        threading.Event().wait(SETTLE)
        run = run_sampled(self.lab.command(*words), self.lab.env)
        if run.exit_code != expect:
            raise RuntimeError(f"labctl {' '.join(words)}: {run.exit_code}\n{run.output}")
        return run

    def judge(self, run: Run) -> Timing:
        """How long it took, and what others did meanwhile."""
        own = run.processor + processor_of_guests(f"{self.name}_")
        return Timing(seconds=run.seconds, others=max(0.0, run.host - own) / run.seconds)

    def clean(self) -> None:
        self.lab.remove(self.name)

    @contextlib.contextmanager
    def floor(self) -> Iterator[Floor]:
        """Plain QEMU, with the arguments of an instance that labctl booted before."""
        if self._template is None:
            raise RuntimeError("labctl has booted nothing yet whose arguments could be taken")
        host, view, template = self._template
        threading.Event().wait(SETTLE)
        with Floor(host, view, template, self.lab.state_dir / "floor") as floor:
            yield floor

    def take_template(self, stack: ExitStack) -> None:
        """Boot one instance, which also warms caches, and keep its command line."""
        say("warming up")
        self.apply(1)
        database = stack.enter_context(contextlib.closing(Database(self.settings.database)))
        host = stack.enter_context(contextlib.closing(open_lab(self.settings, database)))
        with database.read() as connection:
            view = load_view(connection, self.name, capacity=NO_CAPACITY)
            identities = load_identities(connection, self.name)
        instance = view.instances[0]
        folder = self.settings.scale_set_dir(self.name)
        template = read_template(view, instance, identities[instance.name], folder)
        self._template = (host, view, template)
        self.clean()

    def alternate(
        self, what: str, ours: Callable[[], Timing], floor: Callable[[], Timing]
    ) -> dict[str, list[Timing]]:
        """Time both in turn: A B B A A B, so that a drift of the host meets both alike.

        Runs that others disturb are made again, a few times.
        """
        runs: dict[str, list[Timing]] = {"labctl": [], "floor": []}
        for number in range(self.repeats * (1 if self.quick else _MOST)):
            pair = [("labctl", ours), ("floor", floor)]
            for who, measure in reversed(pair) if number % 2 else pair:
                self.await_quiet()
                timing = measure()
                runs[who].append(timing)
                say(f"{what}: {who} {timing.seconds:.2f} s, others {timing.others:.2f} cores")
            if all(len(_undisturbed(timings)) >= self.repeats for timings in runs.values()):
                break
        return runs

    def await_quiet(self) -> None:
        """Wait for a moment in which nobody else works, as long as our patience lasts."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end and host_load() > BUSY:
            pass

    def compare(self, what: str, runs: dict[str, list[Timing]], aim: float | None) -> None:
        is_clean = all(_undisturbed(timings) for timings in runs.values())
        ours, floor = (
            statistics.median(
                timing.seconds for timing in (_undisturbed(runs[who]) if is_clean else runs[who])
            )
            for who in ("labctl", "floor")
        )
        self.add(
            what,
            "s",
            ours,
            floor=floor,
            aim="" if aim is None else f"ratio <= {aim:.2f}",
            reached=None if aim is None else ours / floor <= aim,
            runs={who: [timing.seconds for timing in timings] for who, timings in runs.items()},
            note="" if is_clean else "disturbed: others kept the host busy",
        )

    def add(self, what: str, unit: str, measured: float, **values: Any) -> None:
        self.rows.append(Row(what=what, unit=unit, measured=measured, **values))


@dataclass(slots=True)
class Watched:
    """A run of the floor that is being timed."""

    seconds: float = 0.0
    others: float = 0.0

    @property
    def timing(self) -> Timing:
        return Timing(seconds=self.seconds, others=self.others)


@contextlib.contextmanager
def watching(floor: Floor, *, starts_anew: bool = False) -> Iterator[Watched]:
    """See what others do meanwhile; `starts_anew`: the present QEMU processes will have ended."""
    watched = Watched()
    host, own, guests = host_busy(), time.process_time(), 0.0 if starts_anew else floor.processor
    yield watched
    used = time.process_time() - own + floor.processor - guests
    watched.others = max(0.0, host_busy() - host - used) / watched.seconds


def _undisturbed(timings: list[Timing]) -> list[Timing]:
    return [timing for timing in timings if not timing.is_disturbed]
