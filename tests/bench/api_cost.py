"""What an answer of the API costs, next to a bare server that has the same bytes at hand."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from labctl.model.access import Scope
from tests.api.labs import add_instances, make_ready, put_set
from tests.api.serving import SUBSCRIPTION, serving
from tests.bench.api_load import Answered, Load
from tests.bench.stand import Bench, say

COUNT = 1000
_SET = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/labctl/providers/Microsoft.Compute" + (
    "/virtualMachineScaleSets/web"
)
_VERSION = "?api-version=2024-11-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    what: str
    paths: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the store and the kept answers are, and which cores are whose."""

    state_dir: Path
    answers: Path
    token: str
    server_cpu: int
    client_cpu: int


def measure_api(bench: Bench) -> None:
    """GET of a set with 1000 instances and of their list: times and requests per second."""
    cpus = sorted(os.sched_getaffinity(0))
    folder = bench.lab.state_dir / "api-bench"
    folder.mkdir()
    say(f"a store with {COUNT} instances")
    with serving(folder) as api:
        put_set(api, "web", COUNT)
        add_instances(api, *range(COUNT))
        make_ready(api, *range(COUNT))
        place = _Place(
            state_dir=api.desk.settings.state_dir,
            answers=folder / "answers.json",
            token=api.secrets[Scope.READ],
            server_cpu=cpus[0],
            client_cpu=cpus[-1],
        )
    if place.server_cpu == place.client_cpu:
        say("api: one core only; server and client share it")
    for is_changing in (False, True):
        state = "changing 4 times a second" if is_changing else "at rest"
        for job in _find_jobs(place):
            for connections in (1, 8):
                what = f"API, {job.what}, {connections} connection{'s'[: connections > 1]}, {state}"
                runs = _alternate(bench, place, job, connections, is_changing=is_changing)
                _add_rows(bench, what, runs)


def _find_jobs(place: _Place) -> list[_Job]:
    """The paths of the set and of all pages; the bytes of their answers are kept for the other."""
    with _server(place, "labctl", is_changing=False) as port:
        found: dict[str, str] = {}
        pages: list[str] = []
        url: str | None = f"http://127.0.0.1:{port}{_SET}{_VERSION}"
        while url is not None:
            headers = {"Authorization": f"Bearer {place.token}"}
            answer = requests.get(url, headers=headers, timeout=60)
            answer.raise_for_status()
            path = url.partition(f":{port}")[2]
            found[path] = answer.text
            if pages or "/virtualMachines?" in path:
                pages.append(path)
                url = answer.json().get("nextLink")
            else:
                url = f"http://127.0.0.1:{port}{_SET}/virtualMachines{_VERSION}"
        place.answers.write_text(json.dumps(found))
    sizes = [len(found[path]) >> 10 for path in pages]
    return [
        _Job(what="the set", paths=[f"{_SET}{_VERSION}"]),
        _Job(what=f"a page of its instances ({sizes[0]} KiB)", paths=pages[:1]),
        _Job(what=f"all {len(pages)} pages ({sum(sizes)} KiB)", paths=pages),
    ]


def _alternate(
    bench: Bench, place: _Place, job: _Job, connections: int, *, is_changing: bool
) -> dict[str, list[Answered]]:
    """A B B A A B, so that a drift of the host meets both alike."""
    runs: dict[str, list[Answered]] = {"labctl": [], "bare": []}
    for number in range(bench.repeats):
        for kind in ("labctl", "bare") if number % 2 == 0 else ("bare", "labctl"):
            bench.await_quiet()
            with _server(place, kind, is_changing=is_changing) as port:
                load = Load(
                    port=port,
                    jobs=[job.paths],
                    token=place.token,
                    connections=connections,
                    seconds=0.5 if bench.quick else 1.5,
                    cpu=place.client_cpu,
                )
                runs[kind].append(_run(load))
    return runs


def _run(load: Load) -> Answered:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.api_load"],
        input=json.dumps(asdict(load)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    return Answered(**json.loads(done.stdout))


@contextlib.contextmanager
def _server(place: _Place, kind: str, *, is_changing: bool) -> Iterator[int]:
    """The port of a running server."""
    words = [sys.executable, "-m", "tests.bench.api_servers", kind, "--cpu", str(place.server_cpu)]
    words += ["--state-dir", str(place.state_dir), "--answers", str(place.answers)]
    words += ["--changing"] if is_changing else []
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        told = server.stdout.readline()
        if not told.strip():
            raise RuntimeError(f"the server {kind} did not start")
        yield int(told)
    finally:
        server.stdin.close()
        try:
            server.wait(timeout=30)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def _add_rows(bench: Bench, what: str, runs: dict[str, list[Answered]]) -> None:
    def add(name: str, unit: str, values: dict[str, list[float]], **more: Any) -> None:
        medians = {kind: statistics.median(each) for kind, each in values.items()}
        ours, bare = medians["labctl"], medians["bare"]
        bench.add(f"{what}: {name}", unit, ours, floor=bare, runs=values, **more)
        say(f"{what}: {name} {ours:.2f} {unit}, bare {bare:.2f}, ratio {ours / bare:.2f}")

    add("p50", "ms", {kind: [each.p50 for each in found] for kind, found in runs.items()})
    add("p99", "ms", {kind: [each.p99 for each in found] for kind, found in runs.items()})
    add("requests", "1/s", {kind: [each.rate for each in found] for kind, found in runs.items()})
