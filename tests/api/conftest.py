from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.serving import Api, serving


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A running API without VMs."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for all tests of a module that change nothing."""
    with serving(tmp_path_factory.mktemp("same")) as running:
        yield running
