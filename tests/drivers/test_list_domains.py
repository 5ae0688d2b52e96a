"""Listing domains asks libvirt for no more than it needs; without a libvirt."""

from pathlib import Path
from uuid import UUID

import libvirt
import pytest

from labctl.drivers import hypervisor as module
from labctl.drivers.domain import DomainTag
from labctl.drivers.hypervisor import Hypervisor

STATE_DIR = Path("/lab")


class FakeDomain:
    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name

    def UUIDString(self):  # noqa: N802 - the name is of libvirt
        return str(UUID(int=1))


class FakeConnection:
    def getAllDomainStats(self, *_):  # noqa: N802 - the name is of libvirt
        values = {"state.state": libvirt.VIR_DOMAIN_RUNNING, "state.reason": 1}
        return [(FakeDomain(name), values) for name in ("web_0", "web_1", "web-2_0", "other_0")]


@pytest.mark.parametrize(
    ("scale_set", "names"),
    [("web", {"web_0", "web_1"}), (None, {"web_0", "web_1", "web-2_0", "other_0"})],
)
def test_only_domains_of_the_scale_set_are_asked_for_their_tag(monkeypatch, scale_set, names):
    asked = []

    def find_tag(domain, _scope):
        asked.append(domain.name())
        return DomainTag(
            state_dir=STATE_DIR, scale_set="x", name="x", generation=1, config_hash="h"
        )

    monkeypatch.setattr(module, "_find_tag", find_tag)
    hypervisor = Hypervisor("test:///default")
    monkeypatch.setattr(
        hypervisor._connection, "call", lambda _, operation: operation(FakeConnection())
    )
    found = hypervisor.list_domains(STATE_DIR, scale_set=scale_set)
    assert set(found) == set(asked) == names
