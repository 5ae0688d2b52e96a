from dataclasses import replace

import pytest

from labctl.model.publisher import Architecture
from labctl.store.database import Database
from labctl.store.follows import find_follow, load_follows, remove_follow, save_follow
from tests.model.test_following import FOLLOW, NOW, ONE, WISH

OTHER = replace(FOLLOW, wish=replace(WISH, definition="a", architecture=Architecture.AARCH64))


@pytest.fixture
def connection(tmp_path):
    database = Database(tmp_path / "labctl.db")
    with database.write() as opened:
        yield opened
    database.close()


def test_what_is_saved_is_loaded_in_order(connection):
    looked = FOLLOW.succeed(NOW, ONE).fail(NOW, "down", is_lasting=False)
    assert load_follows(connection) == ()
    for follow in (FOLLOW, looked, OTHER):
        save_follow(connection, follow)
    assert load_follows(connection) == (OTHER, looked)
    assert find_follow(connection, "a") == OTHER
    assert find_follow(connection, "b") is None


def test_removing_it_twice_changes_nothing_more(connection):
    for follow in (FOLLOW, OTHER):
        save_follow(connection, follow)
    assert [remove_follow(connection, "a"), remove_follow(connection, "a")] == [True, False]
    assert load_follows(connection) == (FOLLOW,)
