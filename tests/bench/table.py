"""The rows that a benchmark ends in, as a table; and the host on which they were measured."""

import importlib.util
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    spec = importlib.util.find_spec(package)
    return bool(spec and spec.cached and Path(spec.cached).exists())
