from datetime import timedelta

import pytest

from labctl.model.following import Follow, Wish
from labctl.model.publisher import Architecture
from labctl.store.database import Database
from labctl.store.follows import save_follow
from labctl.store.origins import PulledSku, load_pulled_skus, save_pulled_sku


@pytest.fixture
def connection(tmp_path):
    database = Database(tmp_path / "labctl.db")
    with database.write() as opened:
        yield opened
    database.close()


def sku(definition, name):
    return PulledSku(
        definition=definition,
        publisher="ubuntu",
        offer="server",
        sku=name,
        architecture=Architecture.X86_64,
    )


def test_the_latest_pull_of_a_definition_counts(connection):
    for name in ("22.04", "24.04", "24.04"):
        save_pulled_sku(connection, sku("ubuntu", name))
    assert load_pulled_skus(connection) == (sku("ubuntu", "24.04"),)


def test_what_a_definition_follows_counts_too(connection):
    save_pulled_sku(connection, sku("one", "22.04"))
    for definition in ("one", "two"):
        wish = Wish(
            definition=definition,
            publisher="ubuntu",
            offer="server",
            sku="22.04",
            architecture=Architecture.X86_64,
            publish=True,
            require_signature=False,
            every=timedelta(hours=1),
        )
        save_follow(connection, Follow(wish=wish))
    assert load_pulled_skus(connection) == (sku("one", "22.04"), sku("two", "22.04"))
