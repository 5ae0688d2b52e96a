from datetime import UTC, datetime

import pytest

from labctl.api.probes import find_probe, probe_users
from labctl.arm.errors import ArmError
from labctl.controller.desired import delete_scale_set
from labctl.model.health_source import HealthProbe, Protocol
from tests.api.lab_parts import add_set, make_group, refer_to_probe
from tests.api.serving import SUBSCRIPTION, Api

BALANCER = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Network/loadBalancers/lb"
)


@pytest.fixture
def balanced(api: Api) -> Api:
    make_group(api)
    probe = {"protocol": "Https", "port": 443, "requestPath": "/h", "intervalInSeconds": 5}
    slow = {"protocol": "Tcp", "port": 22, "intervalInSeconds": 300}
    members = [{"name": "p", "properties": probe}, {"name": "slow", "properties": slow}]
    body = {"location": "eastus", "properties": {"probes": members}}
    assert api.ask("PUT", BALANCER, body=body).status_code == 201
    return api


def test_a_probe_is_found_in_any_case(balanced: Api):
    with balanced.desk.database.read() as connection:
        found = find_probe(connection, f"{BALANCER}/PROBES/P".lower(), target="x")
    assert found == HealthProbe(protocol=Protocol.HTTPS, port=443, request_path="/h")


NO_PROBES: list[tuple[object, str]] = [
    (f"{BALANCER}/probes/q", "InvalidResourceReference"),
    (f"{BALANCER}2/probes/p", "InvalidResourceReference"),
    (BALANCER, "LinkedInvalidPropertyId"),
    (f"{BALANCER}/backendAddressPools/p", "LinkedInvalidPropertyId"),
    ("", "LinkedInvalidPropertyId"),
    (None, "LinkedInvalidPropertyId"),
    ({"id": 1}, "LinkedInvalidPropertyId"),
    (f"{BALANCER}/probes/slow", "InvalidParameter"),
]


def test_what_is_no_probe_for_a_scale_set_is_refused(balanced: Api):
    for identifier, code in NO_PROBES:
        with balanced.desk.database.read() as connection, pytest.raises(ArmError) as refused:
            find_probe(connection, identifier, target="properties.x")
        assert refused.value.code == code
        at = "slow.intervalInSeconds" if code == "InvalidParameter" else "properties.x"
        assert refused.value.target == at


def test_users_are_the_scale_sets_that_name_a_probe_and_stay(balanced: Api):
    kept = refer_to_probe(f"{BALANCER}/probes/p")
    names = {name: add_set(balanced, name, group="rg1", document=kept) for name in ("A", "b")}
    add_set(balanced, "c", group="rg1", document=refer_to_probe(f"{BALANCER}2/probes/p"))
    with balanced.desk.database.write() as connection:
        delete_scale_set(connection, "b", now=datetime.now(UTC))
        (user,) = probe_users(connection, BALANCER.upper())
    assert (user.resource, user.scale_set, user.group) == (names["A"], "a", "rg1")
