"""What is measured. Each function adds rows to the table of its stand."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from labctl.planner import plan
from labctl.planner.foresight import record
from labctl.planner.preview import preview
from tests.bench.agent_cost import measure_agent
from tests.bench.api_cost import measure_api
from tests.bench.floor import swap
from tests.bench.stand import NEW, OLD, SETTLE, Bench, Timing, watching
from tests.e2e.harness import HEALTH, ROOT
from tests.planner.world import T0, digest, make_set, upgrading

MIB = 2**20
COUNTS = (1, 4, 8)


def measure_boot(bench: Bench) -> None:
    """Wall time to N healthy instances of a new scale set, and the controller's memory."""
    counts = COUNTS[:2] if bench.quick else COUNTS
    for count in counts:
        _measure_boot_of(bench, count, is_last=count == counts[-1])


def _measure_boot_of(bench: Bench, count: int, *, is_last: bool) -> None:
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
            threading.Event().wait(SETTLE)
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
    "agent": measure_agent,
    "api": measure_api,
}
NEED_GUESTS = {"boot", "swap", "idle"}
