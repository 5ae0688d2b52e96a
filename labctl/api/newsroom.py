"""Hands new events to everybody who follows them: one look at the store for all clients."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from labctl.errors import LabError
from labctl.model.event import Event
from labctl.store.database import Database
from labctl.store.events import find_last_event_id, load_events

_GLANCE = 0.25  # seconds between two looks whether the store has changed
_PAGE = 500  # events that are loaded at a time
_KEPT = 2000  # events that followers need not ask the store for


class Newsroom:
    """The newest events, and those who wait for more. Used by one event loop at a time."""

    def __init__(self) -> None:
        self.last = 0  # the newest event that is known
        self._recent: deque[Event] = deque(maxlen=_KEPT)
        self._followers = 0
        self._news = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def followers(self) -> int:
        """How many follow now."""
        return self._followers

    @property
    def is_open(self) -> bool:
        """Does anybody look for news? Followers leave when not, and may come again."""
        return self._poller is not None and not self._poller.done()

    async def enter(self, database: Database, stop: threading.Event) -> None:
        """Begin to follow; the first one wakes the newsroom. Call `leave` at the end."""
        self._followers += 1
        try:
            async with self._starting:
                if not self.is_open:
                    self._recent.clear()
                    version = database.find_version()
                    self.last = await run_in_threadpool(_find_last, database)
                    work = self._watch(database, stop, version)
                    self._poller = asyncio.create_task(work, name="newsroom")
        except BaseException:
            self._followers -= 1
            raise

    def leave(self) -> None:
        """Follow no more; the newsroom sleeps once nobody does."""
        self._followers -= 1

    async def wait(self, after: int, timeout: float) -> None:
        """Until there may be events above `after`, at most so many seconds."""
        if self.last > after or not self.is_open:
            return
        news = self._news
        try:
            async with asyncio.timeout(timeout):
                await news.wait()
        except TimeoutError:
            return

    async def load(
        self, database: Database, after: int, wanted: Callable[[Event], bool]
    ) -> tuple[list[Event], int]:
        """Some events above `after` that are wanted, oldest first, and up to where that reaches."""
        if self._recent and self._recent[0].id <= after + 1:
            found = [event for event in self._recent if event.id > after][:_PAGE]
        elif after >= self.last:
            return [], after
        else:
            found = await run_in_threadpool(_load, database, after)
        reached = found[-1].id if found else after
        return [event for event in found if wanted(event)], reached

    async def _watch(self, database: Database, stop: threading.Event, version: int) -> None:
        try:
            while self._followers and not stop.is_set():
                await asyncio.sleep(_GLANCE)
                try:
                    found = database.find_version()
                    if found == version:
                        continue
                    version = found
                    await self._take_news(database)
                except LabError:
                    version = -1  # the store cannot be used now: the followers wait, as all do
        finally:
            self._news.set()
            self._news = asyncio.Event()

    async def _take_news(self, database: Database) -> None:
        while True:
            events = await run_in_threadpool(_load, database, self.last)
            if not events:
                return
            self._recent.extend(events)
            self.last = events[-1].id
            news, self._news = self._news, asyncio.Event()
            news.set()


def _find_last(database: Database) -> int:
    with database.read() as connection:
        return find_last_event_id(connection)


def _load(database: Database, after: int) -> list[Event]:
    with database.read() as connection:
        return load_events(connection, after=after, first=_PAGE)
