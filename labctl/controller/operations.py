"""Brings long-running operations of the API to their end, by what is seen and not by memory."""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from labctl.controller.board import Board
from labctl.controller.clock import now as read_clock
from labctl.errors import LabError
from labctl.store.database import Database
from labctl.store.operations import (
    Operation,
    OperationStatus,
    end_operation,
    load_open_operations,
    remove_operations,
)

_GLANCE = 0.25  # seconds between two looks whether anything has changed
_SURVEY = timedelta(seconds=5)  # between two looks at everything, whatever has changed
_MEMORY = timedelta(days=7)  # how long it can be asked how an operation ended
_TIDY = timedelta(hours=1)
_SLOW_AT_ONCE = 6  # two imports must not keep an upgrade from its begin

log = logging.getLogger(__name__)

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an operation ended. `error` is in ARM's shape."""

    error: dict[str, Json] | None = None  # None: it has succeeded
    result: dict[str, Json] | None = None
    is_canceled: bool = False

    @property
    def status(self) -> OperationStatus:
        """In the words of Azure's clients."""
        if self.is_canceled:
            return OperationStatus.CANCELED
        return OperationStatus.SUCCEEDED if self.error is None else OperationStatus.FAILED


# Looks at the facts, does what is next and is safe to repeat, and tells whether it is over.
# Raises LabError when it cannot come to a good end.
Step = Callable[[Operation], Ending | None]


class Operations:
    """The thread that takes each open operation a step further, again and again."""

    def __init__(
        self,
        database: Database,
        board: Board,
        *,
        quick: Mapping[str, Step],
        slow: Mapping[str, Step],
    ) -> None:
        """Steps by kind of operation; those in `slow` may take minutes, each in a thread."""
        self._database = database
        self._board = board
        self._quick = quick
        self._slow = slow
        self._running: dict[str, Future[None]] = {}
        self._tidied_at: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what is open then goes on at the next start."""
        surveyed_at: datetime | None = None
        seen = -1
        with (
            self._database.changes() as has_changed,
            ThreadPoolExecutor(_SLOW_AT_ONCE, thread_name_prefix="operation") as pool,
        ):
            while not stop.is_set():
                now = read_clock()
                is_due = surveyed_at is None or not timedelta(0) <= now - surveyed_at < _SURVEY
                version = self._board.version
                if has_changed() or version != seen or is_due:
                    surveyed_at, seen = now, version
                    try:
                        self._take_steps(pool)
                    except LabError:
                        log.exception("the operations could not be looked at")
                stop.wait(_GLANCE)

    def step_once(self, operation: Operation) -> Ending | None:
        """One step of one operation; its end is written down."""
        try:
            ending = self._find_step(operation)(operation)
        except LabError as error:
            ending = Ending(error={"code": "OperationFailed", "message": _tell(error)})
        except Exception as error:
            log.exception("internal error in operation %s (%s)", operation.id, operation.kind)
            # Not its own text, which may hold what was written into the store.
            text = f"An internal error, which is a fault of labctl: {type(error).__name__}."
            ending = Ending(error={"code": "InternalExecutionError", "message": text})
        if ending is not None:
            with self._database.write() as connection:
                end_operation(
                    connection,
                    operation.id,
                    ending.status,
                    now=read_clock(),
                    error=ending.error,
                    result=ending.result,
                )
        return ending

    def _find_step(self, operation: Operation) -> Step:
        step = self._quick.get(operation.kind) or self._slow.get(operation.kind)
        if step is None:
            raise LabError(f"nobody knows how to go on with {operation.kind!r}")
        return step

    def _take_steps(self, pool: ThreadPoolExecutor) -> None:
        now = read_clock()
        with self._database.read() as connection:
            operations = load_open_operations(connection)
        for operation in operations:
            if operation.kind not in self._slow:
                self.step_once(operation)
                continue
            running = self._running.get(operation.id)
            if running is None or running.done():
                self._running[operation.id] = pool.submit(self._step_aside, operation)
        open_ids = {operation.id for operation in operations}
        self._running = {key: run for key, run in self._running.items() if key in open_ids}
        if self._tidied_at is None or not timedelta(0) <= now - self._tidied_at < _TIDY:
            self._tidied_at = now
            with self._database.write() as connection:
                remove_operations(connection, ended_before=now - _MEMORY)

    def _step_aside(self, operation: Operation) -> None:
        self.step_once(operation)


def _tell(error: LabError) -> str:
    parts = (error.brief, "; ".join(error.detail.splitlines()), error.hint)
    return ". ".join(part for part in parts if part)
