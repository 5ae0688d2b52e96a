"""Tells receivers what happens: in order, at least once, beside the work and never in its way."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from sqlalchemy import Connection

from labctl.controller.clock import now as read_clock
from labctl.controller.lock import try_lock
from labctl.drivers.webhook import post
from labctl.errors import LabError
from labctl.model.event import Event, EventKind
from labctl.model.notification import Notification
from labctl.model.upgrade import Upgrade
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.events import load_events
from labctl.store.receivers import (
    Receiver,
    has_receivers,
    load_receivers,
    remove_finished,
    save_passed,
    save_told,
    save_untold,
)
from labctl.store.scale_sets import load_scale_sets
from labctl.store.upgrades import find_upgrade

PATIENCE = timedelta(seconds=3)  # that a command waits at its end
_LOCK_NAME = "_notify"  # no scale set can have this name
_LOOK = timedelta(milliseconds=250)  # between two looks whether the store has changed
_CALL = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
_REST = timedelta(seconds=5)  # when the store cannot be used
_AT_ONCE = 100  # events that are loaded at a time
_PASSED_AT_MOST = 500  # events that nobody wanted and that are looked at again after a restart
_CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"

log = logging.getLogger(__name__)


class Notifier:
    """One thread that looks, and one for each receiver that is being told something."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stop = threading.Event()
        self._finish_by: float | None = None
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()
        self._couriers: dict[tuple[str, str], threading.Thread] = {}
        self._next_try: dict[tuple[str, str], float] = {}
        self._passed: dict[tuple[str, str], int] = {}  # events that nobody wanted

    def start(self) -> None:
        """Begin; the process that holds the lock tells, the others wait for it."""
        # A daemon thread: a receiver that hangs must not keep a command from its end.
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def finish(self, patience: timedelta = PATIENCE) -> None:
        """Wait, not longer than `patience`, until all is told that can be; then stop."""
        if self._thread is None:
            return
        end = self._finish_by = monotonic() + patience.total_seconds()
        self._thread.join(patience.total_seconds())
        self._stop.set()
        with self._mutex:
            couriers = list(self._couriers.values())
        for courier in couriers:
            courier.join(max(end - monotonic(), 0))

    def _run(self) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                with try_lock(self._settings, _LOCK_NAME) as is_ours:
                    if is_ours:
                        self._watch()
                        return
                if self._is_late() or (self._finish_by is not None and not self._has_pending()):
                    return
                told, rest = "", _LOOK
            except LabError as error:
                # A full disk, for example: a daemon goes on telling when there is room again.
                rest = _REST
                if error.brief != told:
                    log.warning("notifications wait: %s", error.brief, exc_info=True)
                    told = error.brief
            except Exception:
                rest = _REST
                log.exception("internal error in the work for receivers")
            self._stop.wait(rest.total_seconds())

    def _watch(self) -> None:
        with self._database.changes() as has_changed:
            while not self._stop.is_set():
                is_due = any(at <= monotonic() for at in list(self._next_try.values()))
                if has_changed() or is_due or self._finish_by is not None:
                    is_idle = self._send_couriers()
                    if self._finish_by is not None and (is_idle or self._is_late()):
                        return
                self._stop.wait((_LOOK if self._finish_by is None else _LOOK / 5).total_seconds())

    def _is_late(self) -> bool:
        return self._finish_by is not None and monotonic() > self._finish_by

    def _has_pending(self) -> bool:
        """Has another process still to tell somebody who can be told?"""
        with self._database.read() as connection:
            return any(
                not each.failures and self._find_pending(connection, each)
                for each in load_receivers(connection)
            )

    def _send_couriers(self) -> bool:
        """Send somebody to each receiver that waits; True: nobody waits who can be reached."""
        with self._database.read() as connection:
            receivers = load_receivers(connection) if has_receivers(connection) else []
            pending = [each for each in receivers if self._find_pending(connection, each)]
        waiting = {each.key for each in pending}
        for key in set(self._next_try) - waiting:
            self._next_try.pop(key, None)  # taken out of the spec, or told all that it wants
        if not receivers:
            return True
        self._settle([each for each in receivers if each.key not in waiting])
        with self._mutex:
            for each in pending:
                is_waiting = self._next_try.get(each.key, 0.0) > monotonic()
                if each.key in self._couriers or is_waiting:
                    continue
                courier = threading.Thread(
                    target=self._tell_all, args=(each,), name=f"tell-{each.spec.name}", daemon=True
                )
                self._couriers[each.key] = courier
                courier.start()
            return not self._couriers

    def _settle(self, receivers: list[Receiver]) -> None:
        """Look after those who have been told everything."""
        with self._database.read() as connection:
            there = {row.name for row in load_scale_sets(connection)}
        for each in receivers:
            passed = self._passed.get(each.key, 0)
            if each.scale_set not in there:
                with self._database.write() as connection:
                    remove_finished(connection, each.key)
            elif passed - each.told > _PASSED_AT_MOST:
                with self._database.write() as connection:
                    save_passed(connection, each.key, passed)

    def _find_pending(self, connection: Connection, receiver: Receiver) -> list[Event]:
        """The next events that it wants, oldest first; what it does not want is passed over."""
        after = max(receiver.told, self._passed.get(receiver.key, 0))
        while True:
            events = load_events(
                connection, after=after, scale_set=receiver.scale_set, first=_AT_ONCE
            )
            wanted = [event for event in events if receiver.spec.wants(event.topic)]
            if wanted or not events:
                return wanted
            after = events[-1].id
            self._passed[receiver.key] = after

    def _tell_all(self, receiver: Receiver) -> None:
        key = receiver.key
        try:
            failures = receiver.failures
            while not self._stop.is_set():
                with self._database.read() as connection:
                    fresh = {each.key: each for each in load_receivers(connection, key[0])}
                    if key not in fresh:
                        return  # taken out of the spec meanwhile
                    found = [
                        (event, describe_event(connection, event))
                        for event in self._find_pending(connection, fresh[key])
                    ]
                if not found:
                    return
                for event, document in found:
                    if self._stop.is_set():
                        return
                    trouble = _try_to_deliver(fresh[key].spec, document)
                    if trouble is not None:
                        self._put_off(key, trouble, failures + 1)
                        return
                    failures = 0
                    self._next_try.pop(key, None)
                    with self._database.write() as connection:
                        save_told(connection, key, event.id, now=read_clock())
        except LabError as error:
            self._let_wait(key)
            log.warning("receiver %s of %s waits: %s", key[1], key[0], error.brief)
        except Exception:
            self._let_wait(key)
            log.exception("internal error in the work for receiver %s of %s", key[1], key[0])
        finally:
            with self._mutex:
                self._couriers.pop(key, None)

    def _let_wait(self, key: tuple[str, str]) -> None:
        self._next_try[key] = monotonic() + _LONGEST_PAUSE.total_seconds() / 10

    def _put_off(self, key: tuple[str, str], error: str, failures: int) -> None:
        pause = min(_FIRST_PAUSE * (1 << min(failures - 1, 12)), _LONGEST_PAUSE)
        self._next_try[key] = monotonic() + pause.total_seconds()
        with self._database.write() as connection:
            save_untold(connection, key, error, failures=failures, now=read_clock())


@contextmanager
def notifying(settings: Settings, database: Database) -> Iterator[None]:
    """Tell receivers, if there are any, while the block runs, and for a moment after it."""
    with database.read() as connection:
        is_needed = has_receivers(connection)
    if not is_needed:
        yield
        return
    notifier = Notifier(settings, database)
    notifier.start()
    try:
        yield
    finally:
        notifier.finish()


def describe_event(connection: Connection, event: Event) -> dict[str, object]:
    """An event in the form of CloudEvents 1.0; `source` and `id` together are unique."""
    upgrade = None if event.upgrade is None else find_upgrade(connection, event.upgrade)
    return _make_document(event, upgrade)


def _make_document(event: Event, upgrade: Upgrade | None) -> dict[str, object]:
    data: dict[str, object] = {
        "scaleSet": event.scale_set,
        "instance": event.instance,
        "upgrade": event.upgrade,
        "kind": event.kind.value,
        "message": event.message,
        "detail": event.detail,
    }
    if upgrade is not None:
        data["target"] = {
            "version": upgrade.target_version,
            "modelRevision": upgrade.model_revision,
        }
        data["startedBy"] = upgrade.started_by.value
    return {
        "specversion": "1.0",
        # The moment, too: a store that was made anew counts from 1 again.
        "id": f"{event.id}-{event.at:%Y%m%dT%H%M%S%f}",
        "source": f"urn:labctl:{socket.gethostname()}:{event.scale_set}",
        "type": f"labctl.{event.topic}",
        "subject": event.subject,
        "time": event.at.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }


def send_test(receiver: Notification, scale_set: str) -> int:
    """Post an event that means nothing; returns the status. Raises as `deliver`."""
    moment = read_clock()
    event = Event(
        id=0,
        at=moment,
        scale_set=scale_set,
        instance=None,
        upgrade=None,
        kind=EventKind.REQUEST,
        message="a test of this receiver",
        topic="test",
    )
    return deliver(receiver, _make_document(event, None))


def _try_to_deliver(receiver: Notification, document: dict[str, object]) -> str | None:
    """Why it was not told; None: it was."""
    try:
        deliver(receiver, document)
    except LabError as error:
        return error.brief
    except Exception:
        # It waits as any other, instead of being tried again at once and for ever.
        log.exception("internal error in the work for receiver %s", receiver.name)
        return "internal error"
    return None


def deliver(receiver: Notification, document: dict[str, object]) -> int:
    """Post one event; returns the status. Raises LabError unless it is 2xx."""
    body = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    answer = post(receiver, body, content_type=_CONTENT_TYPE, timeout=_CALL)
    if not 200 <= answer.status < 300:
        raise LabError(f"{receiver.host} answered {answer.status}")
    return answer.status
