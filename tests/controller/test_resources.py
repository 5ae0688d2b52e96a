"""Which external resources of a spec are not there, and which credentials are not good any more."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from labctl.controller.resources import (
    fetch,
    find_unreachable,
    require_resources,
    require_tools_and_resources,
)
from labctl.drivers.resource import CredentialRefusedError
from labctl.errors import RefusedError
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.settings import Settings
from tests.drivers.file_server import FileServer

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
SCRIPT = b"#!/bin/sh\ntrue\n"


@pytest.fixture
def server():
    made = FileServer()
    made.files["/x.sh"] = SCRIPT
    made.token = "t0ken"
    yield made
    made.stop()


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=tmp_path, uri="test:///default")


def make(server, **protected):
    return {
        "name": "install",
        "url": server.url("/x.sh"),
        "sha256": hashlib.sha256(SCRIPT).hexdigest(),
        "allowHttp": True,
        "protectedSettings": protected,
    }


def spec(*extensions, **more):
    image = {"definition": "tiny"}
    values = {"name": "web", "capacity": 1, "image": image, "extensions": extensions, **more}
    return ScaleSetSpec.model_validate(values)


def find(settings, *extensions):
    return find_unreachable(spec(*extensions), now=NOW, settings=settings)


def token(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + ".x"


def test_what_can_be_had_is_no_fault(server, settings):
    assert find(settings, make(server, bearerToken="t0ken"), {"name": "a", "script": "x"}) == ()


def test_a_refused_credential_names_extension_and_setting_and_not_the_secret(server, settings):
    ((name, fault),) = find(settings, make(server, bearerToken="s3cret"))
    assert name == "install"
    assert "'protectedSettings.bearerToken' expired or refused" in fault
    assert "401" in fault
    assert "s3cret" not in fault


def test_a_credential_that_is_missing_is_told_so(server, settings):
    ((_, fault),) = find(settings, make(server))
    assert "a credential is needed, and none is given" in fault


def test_dates_that_have_passed_are_seen_without_asking_anybody(server, settings):
    past, future = (NOW + timedelta(minutes=m) for m in (-5, 5))
    expired = token(exp=past.timestamp())
    signature = f"se={past:%Y-%m-%dT%H:%M:%SZ}&sig=abc"
    inner = {
        "name": "b",
        "script": "x",
        "protectedSettings": {"store": {"url": f"https://a/?{signature}"}},
    }
    good = {"name": "c", "script": "x", "protectedSettings": {"t": token(exp=future.timestamp())}}
    faults = dict(find(settings, make(server, bearerToken=expired), inner, good))
    assert faults == {
        "install": "credential 'protectedSettings.bearerToken' expired at 2026-11-23T04:55:00Z",
        "b": "credential 'protectedSettings.store.url' expired at 2026-11-23T04:55:00Z",
    }
    assert server.requests == []


def test_signed_urls_in_scripts_and_custom_data_are_looked_at(settings):
    old = "https://files.example/a?se=2026-11-23T04:55:00Z&sig=s3cret"
    wanted = spec(
        {"name": "a", "script": f"#!/bin/sh\ncurl '{old}' https://files.example/b\n"},
        customData={"inline": f'#!/bin/sh\nwget "{old}"\n'},
    )
    assert find_unreachable(wanted, now=NOW, settings=settings) == (
        ("a", "credential 'script' expired at 2026-11-23T04:55:00Z"),
        (
            "customData",
            "https://files.example/a: its signature expired at 2026-11-23T04:55:00Z",
        ),
    )


def test_nobody_there_is_a_fault_unless_a_verified_copy_is(server, settings):
    wanted = make(server, bearerToken="t0ken")
    server.stop()
    ((_, fault),) = find(settings, wanted)
    assert "is not reachable" in fault
    cache = settings.cache_dir / "extensions"
    cache.mkdir(parents=True)
    (cache / wanted["sha256"]).write_bytes(SCRIPT)
    assert find(settings, wanted) == ()


def test_a_playbook_that_is_gone_is_a_fault(settings, tmp_path):
    playbook = {"name": "play", "playbook": str(tmp_path / "x.yml")}
    ((_, fault),) = find(settings, playbook)
    assert "does not exist" in fault
    (tmp_path / "x.yml").touch()
    assert find(settings, playbook) == ()


def test_a_cached_file_is_used_offline_with_a_warning_but_not_without_its_credential(
    server, settings
):
    extension = Extension.model_validate(make(server, bearerToken="t0ken"))
    assert fetch(extension, settings).content == SCRIPT
    server.token = "another"
    with pytest.raises(CredentialRefusedError, match="bearerToken"):
        fetch(extension, settings)
    assert fetch(extension, settings, is_resumed=True).content == SCRIPT
    server.stop()
    offline = fetch(extension, settings)
    assert offline.content == SCRIPT
    assert "the verified copy is used" in offline.warning


def test_a_public_file_is_fetched_once(server, settings):
    server.token = None
    extension = Extension.model_validate(make(server))
    for _ in range(2):
        assert fetch(extension, settings).content == SCRIPT
    assert [method for method, *_ in server.requests] == ["GET"]


def test_all_faults_are_told_at_once_with_the_next_step(server, settings):
    with pytest.raises(RefusedError) as caught:
        require_resources(spec(make(server, bearerToken="x")), now=NOW, settings=settings)
    assert caught.value.detail.startswith("install: credential")
    assert "labctl apply" in caught.value.hint


def test_applying_asks_only_when_upgrades_are_automatic(server, settings):
    extension = make(server, bearerToken="x")
    require_tools_and_resources(spec(extension), now=NOW, settings=settings)
    assert server.requests == []
    automatic = spec(
        extension,
        health={"probe": {"requestPath": "/"}},
        upgradePolicy={"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}},
    )
    with pytest.raises(RefusedError):
        require_tools_and_resources(automatic, now=NOW, settings=settings)
