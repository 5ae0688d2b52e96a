"""Answers that are given again until the store or the board changes."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from starlette.responses import Response

from labctl.api.call import Answer
from labctl.api.respond import dump
from labctl.model.access import Principal

_ROOM = 32 * 2**20  # bytes of bodies, and of what they were asked by
_OVERHEAD = 1024  # bytes that each one takes beside these
_TRUST = timedelta(seconds=1)  # how long a principal is trusted without asking whether it expired
_PRINCIPALS = 256

Version = tuple[int, int]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """A body that was rendered once."""

    content: bytes
    headers: dict[str, str]

    def render(self) -> Response:
        """The same answer again."""
        return Response(
            self.content, headers=self.headers, media_type="application/json; charset=utf-8"
        )


@dataclass(slots=True)
class _Turn:
    """Who is at work on an answer, and how many want it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0


class KeptAnswers:
    """The answers of one version of the lab, and who was let in lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version: Version | None = None
        self._answers: OrderedDict[Key, KeptAnswer] = OrderedDict()
        self._size = 0
        self._turns: dict[Key, _Turn] = {}  # of the event loop alone
        self._principals: OrderedDict[str, tuple[int, datetime, Principal]] = OrderedDict()

    def find(self, key: Key, version: Version) -> KeptAnswer | None:
        """The answer that is still true, if it is kept."""
        with self._lock:
            if version != self._version:
                return None
            return self._answers.get(key)

    def keep(self, key: Key, version: Version, answer: Answer) -> KeptAnswer:
        """Keep an answer that was made from `version`, or from what came after it."""
        kept = KeptAnswer(content=dump(answer.body), headers=dict(answer.headers))
        with self._lock:
            if version != self._version:
                self._version = version
                self._answers.clear()
                self._size = 0
            before = self._answers.pop(key, None)
            self._size += _weigh(key, kept) - (_weigh(key, before) if before else 0)
            self._answers[key] = kept
            while self._size > _ROOM and len(self._answers) > 1:
                name, oldest = self._answers.popitem(last=False)
                self._size -= _weigh(name, oldest)
        return kept

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Wait until nobody else makes this answer. For one event loop."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted_by += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted_by -= 1
            if not turn.wanted_by:
                self._turns.pop(key, None)

    def find_principal(
        self, authorization: str | None, version: int, now: datetime
    ) -> Principal | None:
        """Who was let in a moment ago with this header, if nothing has changed since."""
        with self._lock:
            known = self._principals.get(authorization or "")
        if known is None or known[0] != version or not timedelta(0) <= now - known[1] < _TRUST:
            return None
        return known[2]

    def keep_principal(
        self, authorization: str | None, version: int, now: datetime, principal: Principal
    ) -> None:
        """Remember for a moment who was let in."""
        with self._lock:
            self._principals[authorization or ""] = (version, now, principal)
            self._principals.move_to_end(authorization or "")
            while len(self._principals) > _PRINCIPALS:
                self._principals.popitem(last=False)


def _weigh(key: Key, kept: KeptAnswer) -> int:
    """What it takes: a query without meaning makes another key each time, and may be long."""
    return len(kept.content) + sum(map(len, key)) + _OVERHEAD
