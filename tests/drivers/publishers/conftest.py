from datetime import UTC, datetime

import pytest

from labctl.settings import Settings
from tests.drivers.publishers.server import PublisherServer
from tests.drivers.publishers.signer import Signer

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
def server():
    server = PublisherServer()
    yield server
    server.close()


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path / "state", uri="test:///default")


@pytest.fixture(scope="session")
def signer():
    signer = Signer("Publisher <images@publisher.test>")
    yield signer
    signer.close()


@pytest.fixture(scope="session")
def stranger():
    stranger = Signer("Somebody else <somebody@else.test>")
    yield stranger
    stranger.close()
