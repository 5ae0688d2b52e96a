"""Runs tests on mutants of the planner, each in a fork of one process that has imported the rest.

Started as `python -m tests.planner.nursery`. A line of stdin is a job, as JSON; the line of stdout
that answers it has the number of the job and how the fork ended: pytest's exit code, NOT_LOADED,
or the negative number of the signal that killed it.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

import labctl.model
from tests.planner.mutation import FOLDER, PACKAGE, Mutant, compile_original

ROOT = Path(__file__).parents[2]
NOT_LOADED = 70  # the tests passed, but none of them imported the file with the mistake
BROKEN = 71  # the fork failed before or after pytest
OPTIONS = (
    *("-c", str(ROOT / "pyproject.toml")),
    *("-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"),
    *("-x", "-q", "--tb=line"),
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Tests to run on one mutant."""

    number: int
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]  # files, in the order in which they are run
    log: str


class Nursery:
    """The process, for those who have jobs for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "LABCTL_MUTANT": "1",  # see conftest.py
        }
        environment.pop("PYTEST_ADDOPTS", None)  # may name plugins that are not loaded here
        # What Hypothesis leaves behind lands in `folder`, too.
        with (folder / "nursery.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment,
                text=True,
                start_new_session=True,
            )

    def passes(self, file: str, text: str, becomes: str, tests: Sequence[str]) -> bool:
        """Do these files of tests/planner pass with `text` of the planner's `file` replaced?

        Raises AssertionError when pytest could not tell.
        """
        self._number += 1
        log = self._folder / f"{self._number}.log"
        job = Job(
            number=self._number,
            file=file,
            text=text,
            becomes=becomes,
            tests=tuple(tests),
            log=str(log),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        number, code = 0, BROKEN
        while number != job.number:  # an earlier job may have been given up by its test
            line = self._process.stdout.readline()
            assert line, f"the nursery is gone: {(self._folder / 'nursery.log').read_text()}"
            number, code = json.loads(line)
        told = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}
        assert code in told, f"{code}\n{log.read_text()}"
        return code == pytest.ExitCode.OK

    def close(self) -> None:
        """End it; what it has forked is through, or hangs and ends with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Fork for each job; this process itself never imports the planner."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed here is no answer
    _prepare()
    for line in sys.stdin:
        job = Job(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            os._exit(_run(job))
        _, status = os.waitpid(pid, 0)
        answers.write(json.dumps([job.number, os.waitstatus_to_exitcode(status)]) + "\n")
        answers.flush()


def _prepare() -> None:
    """Import what every job needs and no mutant changes."""
    for module in pkgutil.iter_modules(labctl.model.__path__):
        importlib.import_module(f"labctl.model.{module.name}")
    pytest.main([*OPTIONS, "--version"])  # imports its plugins, and Hypothesis
    importlib.import_module("hypothesis.strategies")
    for file in FOLDER.glob("*.py"):
        compile_original(PACKAGE, file.stem)
    gc.collect()
    gc.freeze()  # the forks need not look at all this


def _run(job: Job) -> int:
    try:
        with Path(job.log).open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        assert PACKAGE not in sys.modules, "the planner was imported before its mutant"
        mutant = Mutant(PACKAGE, job.file, job.text, job.becomes)
        sys.meta_path.insert(0, mutant)
        code = int(pytest.main([*OPTIONS, *(str(ROOT / name) for name in job.tests)]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - nothing may get back into the loop of the parent
        traceback.print_exc()
        sys.stderr.flush()
        return BROKEN
    return code if code or mutant.is_loaded else NOT_LOADED


if __name__ == "__main__":
    serve()
