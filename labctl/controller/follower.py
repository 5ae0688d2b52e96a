"""Watches publishers for the daemon: what definitions follow is pulled when it is new."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from labctl.controller import published
from labctl.controller.clock import now as read_clock
from labctl.controller.provenance import Source
from labctl.drivers.publishers.failure import UnreachableError, UntrustedError
from labctl.errors import LabError
from labctl.model.following import Follow, Wish
from labctl.model.publisher import find_newest
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.follows import find_follow, load_follows, save_follow
from labctl.store.gallery import load_versions

Tell = Callable[[datetime, str, str], None]

_GLANCE = timedelta(seconds=1)  # between two looks whether something is due
_REST = timedelta(minutes=1)  # when the store itself cannot be used
_PATIENCE = timedelta(seconds=3)  # for a thread that hangs in a connection

log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The work in hand is not wanted any more."""


@dataclass(slots=True)
class _Visit:
    """One pass over what is due at one publisher."""

    thread: threading.Thread | None = None
    wish: Wish | None = None  # in hand now
    source: Source | None = None
    is_cut: bool = False  # what is in hand is not wanted any more

    def cut(self) -> None:
        """End it, wherever it is."""
        self.is_cut = True
        source = self.source
        if source is not None:
            source.transport.hang_up()


@dataclass(slots=True)
class Follower:
    """Looks at publishers in threads of its own, so that a slow one delays nothing else.

    What it does may be cut at any point: a pull that was killed goes on with the next.
    """

    settings: Settings
    database: Database
    tell: Tell
    clock: Callable[[], datetime] = read_clock
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _visits: dict[str, _Visit] = field(default_factory=dict)  # by publisher
    _told: dict[str, set[str]] = field(default_factory=dict)  # by definition: kinds of trouble

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask everything to end, and do not wait."""
        self._stop.set()
        for visit in list(self._visits.values()):
            visit.cut()

    def join(self) -> None:
        """Wait for the end; a thread that a dead connection holds ends with the process."""
        threads = [self._thread, *(visit.thread for visit in list(self._visits.values()))]
        for thread in threads:
            if thread is not None:
                thread.join(_PATIENCE.total_seconds())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except LabError as error:
                text = str(error).replace("\n", "; ")
                self.tell(self.clock(), "follow", f"{text}; {_say_rest()}")
                self._stop.wait(_REST.total_seconds())

    def _watch(self) -> None:
        follows: tuple[Follow, ...] = ()
        with self.database.changes() as has_changed:
            while not self._stop.is_set():
                if has_changed():
                    with self.database.read() as connection:
                        follows = load_follows(connection)
                    self._cut_unwanted(follows)
                now = self.clock()
                for name in {each.wish.publisher for each in follows if each.is_due(now)}:
                    self._visit(name)
                self._stop.wait(_GLANCE.total_seconds())

    def _cut_unwanted(self, follows: tuple[Follow, ...]) -> None:
        wishes = {each.wish for each in follows}
        for visit in self._visits.values():
            if visit.wish is not None and visit.wish not in wishes:
                visit.cut()

    def _visit(self, publisher: str) -> None:
        known = self._visits.get(publisher)
        if known is not None and known.thread is not None and known.thread.is_alive():
            return
        visit = self._visits[publisher] = _Visit()
        visit.thread = threading.Thread(
            target=self._go_through,
            args=(publisher, visit),
            name=f"follow-{publisher}",
            daemon=True,
        )
        visit.thread.start()

    def _go_through(self, publisher: str, visit: _Visit) -> None:
        try:
            with self.database.read() as connection:
                follows = load_follows(connection)
            for follow in follows:
                if follow.wish.publisher == publisher and follow.is_due(self.clock()):
                    self._check(follow, visit)
        except _StoppedError:
            log.info("the visit to %s was cut short", publisher)
        except LabError as error:  # the store: without it nothing can be noted down
            text = str(error).replace("\n", "; ")
            self.tell(self.clock(), publisher, f"{text}; {_say_rest()}")
            self._stop.wait(_REST.total_seconds())

    def check(self, definition: str) -> None:
        """Look once for what `definition` follows, in this thread, due or not.

        Raises HostError when the store cannot be used; any other failure is noted down and told.
        """
        with self.database.read() as connection:
            follow = find_follow(connection, definition)
        if follow is not None:
            self._check(follow, _Visit())

    def _check(self, follow: Follow, visit: _Visit) -> None:
        try:
            after = self._look(follow, visit)
        except Exception as error:
            self._require_wanted(visit)  # hanging up makes errors of its own
            if not isinstance(error, LabError | OSError):
                log.exception("following %s failed", follow.definition)
            after = self._fail(follow, error)
        else:
            self._tell_recovery(after)
        finally:
            visit.source, visit.wish = None, None
        with self.database.write() as connection:
            if self._is_wanted(connection, follow):
                save_follow(connection, after)

    def _look(self, follow: Follow, visit: _Visit) -> Follow:
        wish, now = follow.wish, self.clock()
        with published.opened(self.settings, wish.publisher, now=now, refresh=True) as source:
            visit.source, visit.wish = source, wish
            with self.database.read() as connection:
                # From here on a change is noticed by others; one from just before must be, too.
                visit.is_cut = visit.is_cut or not self._is_wanted(connection, follow)
                here = [each.version for each in load_versions(connection, follow.definition)]
            self._require_wanted(visit)
            sku, versions = published.list_versions(source, wish.offer, wish.sku, wish.architecture)
            newest = find_newest(versions)
            known = max([*here, *([follow.seen] if follow.seen else [])], default=None)
            if newest is not None and (known is None or newest.version > known):
                subject = f"{follow.definition}/{newest.version}"
                before = f"newer than {known}" if known else "the first"
                self.tell(now, subject, f"{wish.publisher} has it, {before}: pulling")
                done = published.pull(
                    source,
                    self.database,
                    newest,
                    definition=follow.definition,
                    description=sku.title,
                    publish=wish.publish,
                    require_signature=wish.require_signature,
                    now=self.clock(),
                    say=lambda line: self._say(visit, line),
                    show=lambda *_: self._require_wanted(visit),
                    sku=sku,
                )
                end = "published" if wish.publish else "not published"
                self.tell(self.clock(), subject, f"pulled and {end}: {done.origin}")
            if source.index.stale:
                # The list is an old one: what was found in it counts, but nothing was learned.
                oldest = source.index.stale[0]
                raise UnreachableError(
                    f"publisher {wish.publisher!r} is down",
                    detail=f"{oldest.why}; the index of {oldest.fetched_at:%Y-%m-%d %H:%M:%S} UTC"
                    " was used",
                )
            return follow.succeed(self.clock(), newest.version if newest else None)

    def _fail(self, follow: Follow, error: Exception) -> Follow:
        now = self.clock()
        brief = error.brief if isinstance(error, LabError) else type(error).__name__
        text = str(error).replace("\n", "; ") or brief
        # What is not to be trusted is large, and downloading it again soon does not mend it.
        after = follow.fail(now, text, is_lasting=isinstance(error, UntrustedError))
        told = self._told.setdefault(follow.definition, set())
        if brief not in told and after.next_at is not None:
            told.add(brief)
            again = f"trying again at {after.next_at:%Y-%m-%d %H:%M:%S} UTC"
            if after.next_at - now < follow.wish.every:
                again += ", then less and less often"
            self.tell(now, follow.definition, f"{text}; what is in the gallery stays; {again}")
        return after

    def _tell_recovery(self, after: Follow) -> None:
        if self._told.pop(after.definition, None):
            name = after.wish.publisher
            self.tell(self.clock(), after.definition, f"following {name} works again")

    def _say(self, visit: _Visit, line: str) -> None:
        self._require_wanted(visit)
        if visit.wish is not None:
            log.info("%s: %s", visit.wish.definition, line)

    def _require_wanted(self, visit: _Visit) -> None:
        if self._stop.is_set() or visit.is_cut:
            raise _StoppedError

    def _is_wanted(self, connection: Connection, follow: Follow) -> bool:
        current = find_follow(connection, follow.definition)
        return current is not None and current.wish == follow.wish


def _say_rest() -> str:
    return f"trying again in {_REST.total_seconds():.0f} s"
