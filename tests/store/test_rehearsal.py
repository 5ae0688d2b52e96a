from datetime import UTC, datetime

import pytest

from labctl.store.arm_resources import find_resource, save_resource
from labctl.store.database import Database
from labctl.store.rehearsal import rehearse

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def save(database: Database, name: str) -> None:
    with database.write() as connection:
        save_resource(connection, name, type="t", group=None, name=name, document={}, now=NOW)


def has(database: Database, name: str) -> bool:
    with database.read() as connection:
        return find_resource(connection, name) is not None


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "labctl.db")
    yield opened
    opened.close()


def test_what_is_rehearsed_is_seen_within_and_gone_afterwards(database):
    version = database.find_version()
    with rehearse(database) as aside:
        save(aside, "a")
        assert has(aside, "a")
        assert not has(database, "a")
        with aside.write(), aside.read():
            save(aside, "b")
        assert has(aside, "b")
    assert not has(database, "a")
    assert database.find_version() == version
    save(database, "c")
    assert has(database, "c")


def test_a_write_that_fails_is_undone_by_itself(database):
    with rehearse(database) as aside:
        save(aside, "a")
        with pytest.raises(ZeroDivisionError), aside.write():
            save(aside, "b")
            raise ZeroDivisionError
        assert has(aside, "a")
        assert not has(aside, "b")


def test_a_rehearsal_that_fails_leaves_nothing_behind(database):
    with pytest.raises(ZeroDivisionError), rehearse(database) as aside:
        save(aside, "a")
        raise ZeroDivisionError
    assert not has(database, "a")
    save(database, "b")
