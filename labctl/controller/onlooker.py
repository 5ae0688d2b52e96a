"""Looks at scale sets that another process works on, so that operations hear of their ends."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

from labctl.controller.board import Board
from labctl.controller.clock import now as read_clock
from labctl.controller.lab import Lab
from labctl.controller.lock import find_holder, is_held
from labctl.controller.work import look_once
from labctl.errors import LabError
from labctl.model.plan import Plan, ScaleSet

_FRESH = timedelta(seconds=1)  # what is so young need not be looked at again
_KEEPER_SILENT = timedelta(seconds=30)  # a keeper of ours looks every few seconds
_PAUSE = timedelta(seconds=2)  # between two looks at the same scale set

Look = Callable[[str], tuple[ScaleSet, Plan]]

log = logging.getLogger(__name__)


class Onlooker:
    """One thread at most; it looks only when asked, and where no keeper of this process does."""

    def __init__(self, lab: Lab, board: Board, *, look: Look | None = None) -> None:
        """`look` is how to look at a scale set of this name now."""
        self._lab = lab
        self._look_once = partial(look_once, lab) if look is None else look
        self._board = board
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="onlooker")
        self._lock = threading.Lock()
        self._looks: dict[str, tuple[datetime, Future[None]]] = {}

    def ask(self, name: str) -> None:
        """Have a look at a scale set soon, unless somebody looks already. Never waits."""
        now = read_clock()
        if not self.is_needed(name, now):
            return
        with self._lock:
            known = self._looks.get(name)
            if known is not None:
                asked_at, future = known
                if not future.done() or timedelta(0) <= now - asked_at < _PAUSE:
                    return
            self._looks[name] = (now, self._pool.submit(self._look, name))

    def is_needed(self, name: str, now: datetime) -> bool:
        """Has nobody of this process looked lately, or will look by itself?"""
        sight = self._board.find(name)
        age = None if sight is None else abs(now - sight.at)
        if age is not None and age < _FRESH:
            return False
        is_ours = is_held(self._lab.settings, name) and (
            find_holder(self._lab.settings, name) == os.getpid()
        )
        return not is_ours or (age is not None and age > _KEEPER_SILENT)

    def _look(self, name: str) -> None:
        began = read_clock()  # what is seen is at least as new
        try:
            view, plan = self._look_once(name)
        except LabError as error:
            log.debug("a look at %s told nothing", name, exc_info=error)
            return
        self._board.put(view, plan, at=began)
