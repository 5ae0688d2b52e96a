"""Runs a program and looks, while it runs, at its clock, processor time and peak memory."""

import contextlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_EACH = 0.2  # seconds between two looks
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    at: float  # monotonic seconds
    processor: float  # seconds used so far, with those of children that have ended
    peak: int  # bytes


@dataclass(slots=True, kw_only=True)
class Run:
    """How one run went. Moments are seconds since its start."""

    seconds: float = 0.0
    exit_code: int = 0
    host: float = 0.0  # processor seconds that the whole host used meanwhile
    lines: list[tuple[float, str]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "\n".join(line for _, line in self.lines)

    @property
    def peak(self) -> int:
        """Bytes."""
        return max((sample.peak for sample in self.samples), default=0)

    @property
    def processor(self) -> float:
        """Seconds, up to the last look."""
        return self.samples[-1].processor if self.samples else 0.0

    def moment_of(self, text: str) -> float:
        """When a line with `text` was printed last."""
        moments = [at for at, line in self.lines if text in line]
        if not moments:
            raise RuntimeError(f"no line says {text!r}:\n{self.output}")
        return moments[-1]

    def share(self, since: float, until: float) -> float:
        """Which share of one core was used between two moments."""
        inside = [s for s in self.samples if since <= s.at <= until]
        if len(inside) < 2:
            raise RuntimeError(f"too few looks between {since:.1f} s and {until:.1f} s")
        first, last = inside[0], inside[-1]
        return (last.processor - first.processor) / (last.at - first.at)


def run_sampled(command: list[str], env: dict[str, str]) -> Run:
    """Run to the end; the caller judges the exit code."""
    began, busy = time.monotonic(), host_busy()
    process = subprocess.Popen(
        command,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    run = Run()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            sample = _look(process.pid, began)
            if sample is not None:
                run.samples.append(sample)
            ended.wait(_EACH)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            run.lines.append((time.monotonic() - began, line.rstrip("\n")))
        run.exit_code = process.wait()
        run.seconds = time.monotonic() - began
        run.host = host_busy() - busy
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        ended.set()
        watcher.join()
    return run


def _look(pid: int, began: float) -> Sample | None:
    try:
        used = processor_of(pid)
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # getrusage would not do: a process that forked without a copy shows its parent's peak.
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    if peak is None:  # it is ending
        return None
    return Sample(at=time.monotonic() - began, processor=used, peak=int(peak.split()[1]) * 1024)


def processor_of(pid: int) -> float:
    """Processor seconds of a process, with those of children that have ended."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    # The name in parentheses may hold blanks. Behind it: state is field 3, utime is field 14.
    fields = stat.rpartition(")")[2].split()
    return sum(int(fields[number - 3]) for number in (14, 15, 16, 17)) / _TICKS


def processor_of_guests(prefix: str) -> float:
    """Processor seconds of the QEMU processes of libvirt's domains with this prefix."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"guest={prefix}" in path.read_bytes().decode(errors="replace"):
                total += processor_of(int(path.parent.name))
    return total


def host_busy() -> float:
    """Processor seconds that the host has used since it started."""
    user, nice, system, _idle, _iowait, irq, soft_irq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + soft_irq) / _TICKS


def host_load(seconds: float = 2.0) -> float:
    """How many cores are busy now, by whomever."""
    before, began = host_busy(), time.monotonic()
    threading.Event().wait(seconds)
    return (host_busy() - before) / (time.monotonic() - began)
