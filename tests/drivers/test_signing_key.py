import os
import stat

import pytest

from labctl.drivers.signing_key import ensure_signing_key
from labctl.errors import HostError
from labctl.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path, uri="test:///default")


def test_the_key_is_made_once_and_for_nobody_else(settings):
    key = ensure_signing_key(settings)
    assert len(key) == 32
    assert ensure_signing_key(settings) == key
    assert [p.name for p in settings.api_dir.iterdir()] == ["signing.key"]
    assert stat.S_IMODE((settings.api_dir / "signing.key").stat().st_mode) == 0o600


def test_who_is_slower_takes_the_key_of_who_was_faster(settings, monkeypatch):
    link = os.link

    def link_late(source, target):
        target.write_bytes(b"f" * 32)
        link(source, target)

    monkeypatch.setattr(os, "link", link_late)
    assert ensure_signing_key(settings) == b"f" * 32
    assert [p.name for p in settings.api_dir.iterdir()] == ["signing.key"]


def test_half_a_key_is_refused(settings):
    settings.api_dir.mkdir()
    (settings.api_dir / "signing.key").write_bytes(b"short")
    with pytest.raises(HostError, match="too short"):
        ensure_signing_key(settings)
