"""A transaction that many may write into and that nobody keeps: what would come of it?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text
from typing_extensions import override

from labctl.store.database import Database


class Rehearsal(Database):
    """Looks like the database to those who read and write, one after the other, in one thread."""

    def __init__(self, database: Database, connection: Connection) -> None:
        # Not the parent's: it would open and migrate the file once more.
        self.path = database.path
        self._database = database
        self._connection = connection
        self._depth = 0

    @override
    @contextmanager
    def read(self) -> Iterator[Connection]:
        yield self._connection

    @override
    @contextmanager
    def write(self) -> Iterator[Connection]:
        self._depth += 1
        name = f"rehearsal_{self._depth}"
        self._connection.execute(text(f"SAVEPOINT {name}"))
        try:
            yield self._connection
        except BaseException:
            self._connection.execute(text(f"ROLLBACK TO {name}"))
            raise
        finally:
            self._connection.execute(text(f"RELEASE {name}"))
            self._depth -= 1

    @override
    @contextmanager
    def changes(self) -> Iterator[Callable[[], bool]]:
        yield lambda: True

    @override
    def find_version(self) -> int:
        return self._database.find_version()

    @override
    def close(self) -> None:
        """It is the real one's file."""


@contextmanager
def rehearse(database: Database) -> Iterator[Rehearsal]:
    """Writers wait meanwhile; what is written into the rehearsal is gone at its end."""
    with database.write() as connection:
        try:
            yield Rehearsal(database, connection)
        finally:
            connection.rollback()  # so that there is nothing to commit
