"""What the health agents cost: memory, and processor time as a share of one core."""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench.stand import Bench
from tests.guest.conftest import Agent, Application

INTERVAL = 5  # seconds, the default of a spec
KIB = 2**10
MIB = 2**20


def measure_agent(bench: Bench) -> None:
    """Both agents on this host, asking an application and being asked at the default interval."""
    application = Application()
    application.body = b'{"ApplicationHealthState": "Healthy"}'
    try:
        for kind in ("py", "sh"):
            for version in ("1.0", "2.0"):
                _measure(bench, kind, version, application)
    finally:
        application.close()


def _measure(bench: Bench, kind: str, version: str, application: Application) -> None:
    turns = 4 if bench.quick else 12
    with tempfile.TemporaryDirectory() as directory:
        agent = Agent(kind, Path(directory))
        try:
            agent.start(
                appPort=application.port, typeHandlerVersion=version, intervalSeconds=INTERVAL
            )
            agent.wait(lambda: agent.verdict()[0] == "Healthy")
            before = _processor(agent)
            for _ in range(turns):  # as the controller does, which asks as often
                threading.Event().wait(INTERVAL)
                agent.get()
            share = (_processor(agent) - before) / (turns * INTERVAL)
            resident = _resident(agent)
        finally:
            agent.stop()
    name = f"agent.{kind}, health {version}"
    bench.add(f"{name}: memory", "MiB", resident / MIB, aim="< 20 MiB", reached=resident < 20 * MIB)
    bench.add(f"{name}: share of one core", "%", share * 100, aim="< 1 %", reached=share < 0.01)


def _processes(agent: Agent) -> Iterator[Path]:
    """Every process of the agent; it began a session of its own."""
    assert agent.process is not None
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == agent.process.pid:
                yield folder
        except ProcessLookupError:
            continue


def _processor(agent: Agent) -> float:
    """Seconds, with those of children that have ended."""
    ticks = 0
    for folder in _processes(agent):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # own and children's, user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident(agent: Agent) -> int:
    total = 0
    for folder in _processes(agent):
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * KIB
    return total
