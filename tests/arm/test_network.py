import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.errors import ArmError
from labctl.arm.ids import ResourceId
from labctl.arm.network import find_references, read_resource, render_resource
from labctl.arm.network_kinds import NETWORK_KINDS, Kind, find_kind

KINDS = {kind.name: kind for kind in NETWORK_KINDS}
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name", "properties", "x"]), inner)
    ),
    max_leaves=8,
)
MEMBERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b", "B"]) | JSON}, optional={"properties": JSON}
    )
    | JSON,
    max_size=3,
)


def make_id(kind: Kind, name: str = "One") -> ResourceId:
    return ResourceId(
        subscription=str(UUID(int=1)),
        group="rg",
        namespace="Microsoft.Network",
        parts=((kind.name, name),),
    )


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Kind, dict[str, object]]:
    kind = draw(st.sampled_from(NETWORK_KINDS))
    parts = {part.key: MEMBERS | JSON for part in kind.parts}
    known = {"addressSpace": JSON, "dnsSettings": JSON, "provisioningState": JSON}
    properties = st.fixed_dictionaries({}, optional={**parts, **known}) | JSON
    optional = {"tags": JSON, "sku": JSON, "zones": JSON, "etag": JSON, "properties": properties}
    body = st.fixed_dictionaries(
        {"location": st.just("local") | JSON}, optional={**optional, "identity": LEAVES}
    )
    return kind, draw(body)


@given(bodies())
def test_whatever_is_sent_is_refused_or_can_be_sent_again_as_it_is_shown(
    sent: tuple[Kind, dict[str, object]],
):
    kind, body = sent
    try:
        document = read_resource(kind, body)
    except ArmError:
        return
    shown = render_resource(kind, make_id(kind), document, etag="e")
    again = read_resource(kind, json.loads(json.dumps(shown)))
    assert render_resource(kind, make_id(kind), again, etag="e") == shown


def test_parts_have_ids_and_states_as_clients_expect():
    kind = KINDS["loadBalancers"]
    probe = {"name": "P", "properties": {"protocol": "Tcp", "port": 22}}
    document = read_resource(kind, {"location": "East US", "properties": {"Probes": [probe]}})
    shown = render_resource(kind, make_id(kind), document, etag="e")
    assert shown["properties"]["provisioningState"] == "Succeeded"
    assert shown["properties"]["backendAddressPools"] == []
    assert shown["properties"]["probes"] == [
        {
            "id": f"{make_id(kind)}/probes/P",
            "name": "P",
            "type": "Microsoft.Network/loadBalancers/probes",
            "etag": "e",
            "properties": {"protocol": "Tcp", "port": 22, "provisioningState": "Succeeded"},
        }
    ]


def test_a_public_ip_address_has_a_name_that_nobody_can_resolve_and_no_address():
    kind = KINDS["publicIPAddresses"]
    body = {"location": "eastus", "properties": {"dnsSettings": {"domainNameLabel": "web"}}}
    shown = render_resource(kind, make_id(kind), read_resource(kind, body), etag="e")
    assert shown["properties"]["dnsSettings"]["fqdn"] == "web.eastus.lab.invalid"
    assert "ipAddress" not in shown["properties"]


@pytest.mark.parametrize(
    ("kind", "properties", "target"),
    [
        ("virtualNetworks", {}, "properties.addressSpace.addressPrefixes"),
        (
            "virtualNetworks",
            {"addressSpace": {"addressPrefixes": ["10.0.0/8"]}},
            "properties.addressSpace.addressPrefixes",
        ),
        ("loadBalancers", {"probes": {}}, "properties.probes"),
        ("loadBalancers", {"probes": [{"name": "p"}]}, "p.protocol"),
        (
            "loadBalancers",
            {"backendAddressPools": [{"name": "a"}, {"name": "A"}]},
            "properties.backendAddressPools[1].name",
        ),
        ("loadBalancers", {"outboundRules": [{"name": "a/b"}]}, "properties.outboundRules[0].name"),
    ],
)
def test_a_refusal_names_the_place(kind: str, properties: object, target: str):
    with pytest.raises(ArmError) as refused:
        read_resource(KINDS[kind], {"location": "local", "properties": properties})
    assert refused.value.target == target


def test_references_are_found_at_any_depth():
    document = {"a": [{"b": {"id": "x"}}], "id": "y", "c": {"id": 3}}
    assert sorted(find_references(document)) == [("", "y"), ("a[0].b", "x")]


def test_kinds_are_found_in_any_case():
    assert find_kind("microsoft.network/LOADBALANCERS") is KINDS["loadBalancers"]
    assert find_kind("Microsoft.Compute/disks") is None
