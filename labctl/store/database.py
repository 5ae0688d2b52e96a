"""Opens the SQLite file, migrates it, and hands out transactions."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from labctl.errors import HostError
from labctl.settings import make_passable

_BUSY_SECONDS = 30


class Database:
    """The store of one state directory. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open or create `path` (0600) and bring its tables up to date.

        Raises HostError when the directory cannot be written or the file is from a newer labctl.
        """
        self.path = path
        try:
            make_passable(path.parent)
            # Host keys and tokens are inside, so nobody else may read it, from the first byte on.
            path.touch(mode=0o600)
            if path.stat().st_mode & 0o077:  # copied back by somebody, for example
                path.chmod(0o600)
        except OSError as error:
            raise HostError(
                f"cannot write the state directory {str(path.parent)!r}",
                detail=str(error),
                hint="free space, or choose another with --state-dir or LABCTL_STATE_DIR",
            ) from error
        self._engine = _create_engine(path)
        self._versions: Connection | None = None  # asked for nothing else
        self._asked: DBAPICursor  # there when the connection is
        self._asking = threading.Lock()
        from labctl.store.migrations import ensure_current

        with self._translated():
            ensure_current(self._engine, path)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; writes in it are a mistake."""
        with self._translated(), self._engine.connect() as connection:
            connection.execute(text("BEGIN"))
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end, undone if an exception passes."""
        with self._translated(), self._engine.connect() as connection:
            # A deferred BEGIN that upgrades later fails at once when another writer was faster.
            connection.execute(text("BEGIN IMMEDIATE"))
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def changes(self) -> Iterator[Callable[[], bool]]:
        """Yield a question that is cheap to ask: has anybody committed since it was last asked?"""
        with self._translated(), self._engine.connect() as connection:
            version = -1

            def has_changed() -> bool:
                nonlocal version
                last, version = (
                    version,
                    connection.execute(text("PRAGMA data_version")).scalar_one(),
                )
                return bool(last != version)

            yield has_changed

    def find_version(self) -> int:
        """A number that is another after every commit, of whichever process. Cheap to ask."""
        with self._translated(), self._asking:
            if self._versions is None:
                connection = self._engine.connect()
                self._asked = connection.connection.cursor()
                self._versions = connection
            # SQLAlchemy takes twenty times as long for this, and every request asks.
            self._asked.execute("PRAGMA data_version")
            return int(self._asked.fetchall()[0][0])

    def close(self) -> None:
        """Close every connection."""
        with self._asking:
            if self._versions is not None:
                self._asked.close()
                self._versions.close()
                self._versions = None
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, sqlite3.OperationalError) as error:
            said = error.orig if isinstance(error, OperationalError) else error
            free = shutil.disk_usage(self.path.parent).free >> 10
            raise HostError(
                f"the store {str(self.path)!r} cannot be used",
                detail=f"{said}; {free} KiB are free",
                hint="check free space and permissions with `labctl doctor`; nothing was half done",
            ) from error


def _create_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=os.fspath(path)),  # a path may hold ? and %
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=32,
        connect_args={
            "timeout": _BUSY_SECONDS,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        # A commit that a power cut loses would lose an intent, and with it a disk.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine
