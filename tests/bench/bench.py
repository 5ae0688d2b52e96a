"""Times and memory of labctl, where possible as ratios to plain QEMU: `make bench` runs it.

Nothing is asserted. Runs of labctl and of the floor alternate, and medians are compared.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from labctl.controller.desired import NO_CAPACITY
from labctl.controller.lab import Lab as Host
from labctl.controller.lab import open_lab
from labctl.model.plan import ScaleSet
from labctl.planner import plan
from labctl.planner.preview import preview
from labctl.settings import load_settings
from labctl.store.database import Database
from labctl.store.instances import load_identities
from labctl.store.scale_sets import load_view
from tests.bench.floor import Floor, Template, read_template, swap
from tests.bench.sampled import Run, host_busy, host_load, processor_of_guests, run_sampled
from tests.e2e.harness import HEALTH, ROOT, Lab, share_build_cache, state_directory

MIB = 2**20
COUNTS = (1, 4, 8)
OLD, NEW = "1.0.0", "1.1.0"
_BUSY = 0.3  # cores that others may use before the numbers are doubtful
_SETTLE = 1.0  # seconds of quiet before each timed run
_MOST = 3  # times as many runs as wanted, when others disturb them


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    unit: str
    measured: float
    floor: float | None = None
    aim: str = ""
    reached: bool | None = None  # None: there is no aim
    runs: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.floor if self.floor else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One timed run."""

    seconds: float
    others: float  # cores that were busy with something else meanwhile

    @property
    def is_disturbed(self) -> bool:
        return self.others > _BUSY


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
        threading.Event().wait(_SETTLE)
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
        threading.Event().wait(_SETTLE)
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
        while time.monotonic() < end and host_load() > _BUSY:
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


# --- what is measured -----------------------------------------------------------------------------


def measure_boot(bench: Bench) -> None:
    """Wall time to N healthy instances of a new scale set, and the controller's memory."""
    counts = COUNTS[:2] if bench.quick else COUNTS
    for count in counts:
        bench_boot(bench, count, is_last=count == counts[-1])


def bench_boot(bench: Bench, count: int, *, is_last: bool) -> None:
    peaks: list[float] = []
    processor: list[float] = []

    def ours() -> Timing:
        run = bench.apply(count)
        peaks.append(run.peak / MIB)
        processor.append(run.processor)
        timing = bench.judge(run)
        bench.clean()
        return timing

    def floor() -> Timing:
        with bench.floor() as plain, watching(plain) as watched:
            watched.seconds = plain.provision(count, bench.digest(OLD))
        return watched.timing

    runs = bench.alternate(f"{count} healthy", ours, floor)
    bench.compare(f"wall time to {count} healthy", runs, 1.10 if count == 4 else None)
    bench.add(
        f"processor time of the controller, N={count}",
        "s",
        statistics.median(processor),
        runs={"labctl": processor},
    )
    if is_last:
        peak = max(peaks)
        bench.add(
            f"peak memory of the controller, N={count}",
            "MiB",
            peak,
            aim="< 120 MiB",
            reached=peak < 120,
            runs={"labctl": peaks},
        )


def measure_swap(bench: Bench) -> None:
    """Downtime of an OS-disk swap: from the power button to healthy."""
    bench.apply(1)
    with bench.floor() as floor:
        plain = floor.make(0)
        plain.prepare(1, bench.digest(OLD))
        plain.start(1, bench.digest(OLD))
        plain.await_ready()
        plain.await_healthy()
        turns = {"labctl": 0, "floor": 1}

        def ours() -> Timing:
            turns["labctl"] += 1
            version = NEW if turns["labctl"] % 2 else OLD
            run = bench.time("upgrade", "start", bench.name, "--version", version)
            status = bench.lab.json("upgrade", "status", bench.name)
            downtime = float(status["members"][0]["downtime"])
            return Timing(seconds=downtime, others=bench.judge(run).others)

        def stop_and_boot() -> Timing:
            turns["floor"] += 1
            digest = bench.digest(OLD if turns["floor"] % 2 else NEW)
            plain.prepare(turns["floor"], digest)
            threading.Event().wait(_SETTLE)
            with watching(floor, starts_anew=True) as watched:
                watched.seconds = swap(plain, turns["floor"], digest)
            return watched.timing

        runs = bench.alternate("swap", ours, stop_and_boot)
    bench.clean()
    bench.compare("downtime of an OS-disk swap", runs, 1.10)


def measure_idle(bench: Bench) -> None:
    """Share of a core that the controller takes while it waits for custom data, and for health."""
    seconds = 10 if bench.quick else 30
    run = bench.apply(1, customData={"inline": f"#!/bin/sh\nsleep {seconds}\n"})
    began = run.moment_of("login by SSH") + 2
    _add_share(bench, "custom data", run.share(began, began + seconds - 4))
    bench.clean()
    # Nobody listens on that port, so the agent says Unhealthy until labctl gives up.
    health = {"applicationHealth": {**HEALTH["applicationHealth"], "port": 8099}}
    patience = {"healthTimeout": f"{seconds}s"}
    run = bench.apply(1, expect=1, health=health, upgradePolicy=patience)
    began = run.moment_of("custom data done") + 2
    _add_share(bench, "health", run.share(began, began + seconds - 4))
    bench.clean()


def _add_share(bench: Bench, what: str, share: float) -> None:
    bench.add(
        f"processor share while waiting for {what}",
        "% of a core",
        100 * share,
        aim="< 2 %",
        reached=share < 0.02,
    )


def measure_start(bench: Bench) -> None:
    """Start time of the program."""
    launcher = ROOT / ".venv" / "bin" / "labctl"
    program = [str(launcher)] if launcher.exists() else bench.lab.command()
    times = 3 if bench.quick else 10
    runs = {"labctl": [], "floor": []}
    for _ in range(times):
        runs["labctl"].append(_time([*program, "--help"]))
        runs["floor"].append(_time([sys.executable, "-c", "pass"]))
    bench.add(
        "start: labctl --help (floor: python -c pass)",
        "s",
        statistics.median(runs["labctl"]),
        floor=statistics.median(runs["floor"]),
        aim="< 0.25 s",
        reached=statistics.median(runs["labctl"]) < 0.25,
        runs=runs,
    )
    imports = [_time_imports("labctl.cli.app") for _ in range(times)]
    bench.add("start: imports of labctl --help", "s", statistics.median(imports))
    modules = "labctl.cli.app, labctl.cli.spec_file, labctl.cli.follow, labctl.controller.desired"
    imports = [_time_imports(modules) for _ in range(times)]
    bench.add("start: imports of labctl apply", "s", statistics.median(imports))


def _time(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.monotonic() - began


def _time_imports(modules: str) -> float:
    """The total that `python -X importtime` tells, in seconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {modules}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    lines = [line.split("|") for line in done.stderr.splitlines() if "import time:" in line]
    return sum(int(own.split(":")[1]) for own, *_ in lines[1:]) / 1e6


def measure_planner(bench: Bench) -> None:
    """Plans a second in the middle of an upgrade of 1000 instances, and that whole upgrade."""
    from labctl.planner.foresight import record
    from tests.planner.world import T0, digest, make_set, upgrading

    big = make_set(1000)
    middle = upgrading(big)
    for _ in range(2):  # the check of the whole set, then the first batch
        for decision in plan(middle, T0).decisions:
            middle = record(middle, decision, T0)
    began = time.monotonic()
    turns = 0
    while time.monotonic() - began < (1 if bench.quick else 5):
        plan(middle, T0 + timedelta(seconds=turns))
        turns += 1
    bench.add("planner: plans of 1000 instances", "1/s", turns / (time.monotonic() - began))
    began = time.monotonic()
    foreseen = preview(big, target_version=NEW, target_digest=digest(NEW), now=T0)
    assert len(foreseen.batches) == 5, foreseen
    bench.add("planner: whole upgrade of 1000 instances", "s", time.monotonic() - began)


MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "planner": measure_planner,
    "start": measure_start,
    "boot": measure_boot,
    "swap": measure_swap,
    "idle": measure_idle,
}
_NEED_GUESTS = {"boot", "swap", "idle"}


# --- the table ------------------------------------------------------------------------------------


def print_table(rows: list[Row]) -> None:
    heads = ("what", "measured", "floor", "ratio", "aim", "")
    lines = [heads]
    for row in rows:
        ratio = row.ratio
        lines.append(
            (
                row.what,
                f"{row.measured:.{_digits(row.measured)}f} {row.unit}",
                "" if row.floor is None else f"{row.floor:.{_digits(row.floor)}f} {row.unit}",
                "" if ratio is None else f"{ratio:.2f}",
                row.aim,
                row.note or ("" if row.reached is None else "reached" if row.reached else "MISSED"),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _digits(value: float) -> int:
    return 3 if value < 1 else 2 if value < 100 else 0


def describe_host(busy: float) -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "loadAverage": os.getloadavg(),
        "busyCoresBefore": round(busy, 2),
        # Without compiled files, Python compiles what it imports at each start.
        "hasBytecode": _has_bytecode("sqlalchemy"),
    }


def _has_bytecode(package: str) -> bool:
    import importlib.util

    spec = importlib.util.find_spec(package)
    return bool(spec and spec.cached and Path(spec.cached).exists())


def run_all(bench: Bench, names: list[str]) -> None:
    with ExitStack() as stack:
        if _NEED_GUESTS & set(names):
            bench.build_images()
            bench.take_template(stack)
        for name in names:
            say(f"--- {name}")
            MEASUREMENTS[name](bench)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run each, N up to 4")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait before each run for quiet"
    )
    parser.add_argument("-o", "--output", nargs=2, metavar=("json", "FILE"), help="also to a file")
    options = parser.parse_args()
    if options.output and options.output[0] != "json":
        parser.error(f"-o {options.output[0]}: only json is known")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    busy = host_load()
    host = describe_host(busy)
    print(f"host: {json.dumps(host)}", flush=True)
    if busy > _BUSY:
        print(
            f"*** WARNING: others keep {busy:.1f} cores of this host busy. These numbers are no"
            " measure of labctl; wait until the host is quiet. ***",
            flush=True,
        )
    code = 0
    with state_directory() as path:
        share_build_cache(path)
        bench = Bench(Lab(path), quick=options.quick, patience=options.patience)
        try:
            run_all(bench, options.only or list(MEASUREMENTS))
        except KeyboardInterrupt:
            say("interrupted; cleaning up")
            code = 130
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            bench.clean()
    print_table(bench.rows)
    if options.output:
        document = {"host": host, "rows": [{**asdict(r), "ratio": r.ratio} for r in bench.rows]}
        Path(options.output[1]).write_text(json.dumps(document, indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
