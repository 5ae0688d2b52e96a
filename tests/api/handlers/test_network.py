from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.api import references
from labctl.model.health_source import Health, HealthProbe, Protocol
from labctl.store.arm_resources import find_resource
from tests.api.lab_parts import (
    add_set,
    load_everything,
    load_spec,
    make_group,
    refer_to_probe,
)
from tests.api.serving import SUBSCRIPTION, Api

Json = Any

NETWORK = "resourceGroups/rg1/providers/Microsoft.Network"
IDS = f"/subscriptions/{SUBSCRIPTION}/{NETWORK}"
VNET = {
    "location": "eastus",
    "properties": {
        "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
        "subnets": [{"name": "Default", "properties": {"addressPrefix": "10.0.0.0/24"}}],
    },
}


def make_balancer(probes: dict[str, Json] | None = None, **more: Json) -> dict[str, Json]:
    members = [{"name": name, "properties": each} for name, each in (probes or {}).items()]
    return {
        "location": "eastus",
        "sku": {"name": "Standard"},
        "properties": {
            "backendAddressPools": [{"name": "bepool"}],
            "probes": members,
            **more,
        },
    }


def tcp(port: int, **more: Json) -> dict[str, Json]:
    return {"protocol": "Tcp", "port": port, "intervalInSeconds": 5, **more}


def test_a_resource_is_shown_as_it_was_written_and_can_be_put_again(api: Api):
    make_group(api, "Rg1")
    made = api.ask("PUT", f"{NETWORK}/virtualNetworks/VNet", body=VNET)
    assert made.status_code == 201
    (subnet,) = made.json()["properties"]["subnets"]
    assert subnet["id"] == f"{made.json()['id']}/subnets/Default"
    assert made.headers["ETag"] == made.json()["etag"]
    lower = f"{NETWORK}/virtualnetworks/vnet".lower()
    shown = api.ask("GET", lower)
    assert shown.json() == made.json()
    again = api.ask("PUT", lower, body=shown.json(), headers={"If-Match": shown.headers["ETag"]})
    assert (again.status_code, again.json()) == (200, made.json())
    for path in (f"{NETWORK}/virtualNetworks", "providers/Microsoft.Network/virtualNetworks"):
        assert api.ask("GET", path).json() == {"value": [made.json()]}


def test_a_put_replaces_and_a_patch_changes_tags_only(api: Api):
    make_group(api)
    path = f"{NETWORK}/natGateways/nat"
    body = {"location": "eastus", "tags": {"a": "b"}, "properties": {"idleTimeoutInMinutes": 10}}
    api.ask("PUT", path, body=body)
    patched = api.ask("PATCH", path, body={"tags": {"c": "d"}}).json()
    assert (patched["tags"], patched["properties"]["idleTimeoutInMinutes"]) == ({"c": "d"}, 10)
    assert api.ask("PATCH", path, body={"sku": {"name": "x"}}).status_code == 400
    replaced = api.ask("PUT", path, body={"location": "eastus"}).json()
    assert "tags" not in replaced
    assert replaced["properties"]["idleTimeoutInMinutes"] == 4
    assert api.ask("PUT", path, body={"location": "other"}).status_code == 409


def test_subnets_are_resources_of_their_own(api: Api):
    make_group(api)
    api.ask("PUT", f"{NETWORK}/virtualNetworks/vnet", body=VNET)
    path = f"{NETWORK}/virtualNetworks/vnet/subnets"
    body = {"properties": {"addressPrefix": "10.0.1.0/24"}}
    assert api.ask("PUT", f"{path}/Two", body=body).status_code == 201
    assert api.ask("PUT", f"{path}/two", body=body).json()["name"] == "Two"
    names = [each["name"] for each in api.ask("GET", path).json()["value"]]
    assert names == ["Default", "Two"]
    assert api.ask("DELETE", f"{path}/TWO").status_code == 200
    assert api.ask("DELETE", f"{path}/TWO").status_code == 204
    assert api.ask("GET", f"{path}/two").json()["error"]["code"] == "ResourceNotFound"


def test_references_must_be_there_and_what_is_in_use_stays(api: Api):
    make_group(api)
    front = {"publicIPAddress": {"id": f"{IDS}/publicIPAddresses/pip"}}
    rule = {
        "frontendIPConfiguration": {"id": f"{IDS}/loadBalancers/lb/frontendIPConfigurations/fe"},
        "probe": {"id": f"{IDS}/loadBalancers/lb/probes/P"},
    }
    body = make_balancer(
        {"p": tcp(22)},
        frontendIPConfigurations=[{"name": "fe", "properties": front}],
        loadBalancingRules=[{"name": "r", "properties": rule}],
    )
    early = api.ask("PUT", f"{NETWORK}/loadBalancers/lb", body=body)
    assert (early.status_code, early.json()["error"]["code"]) == (400, "InvalidResourceReference")
    address = f"{NETWORK}/publicIPAddresses/pip"
    api.ask("PUT", address, body={"location": "eastus"})
    assert api.ask("PUT", f"{NETWORK}/loadBalancers/lb", body=body).status_code == 201
    used = api.ask("DELETE", address)
    assert (used.status_code, used.json()["error"]["code"]) == (
        409,
        "PublicIPAddressCannotBeDeleted",
    )
    assert api.ask("DELETE", f"{NETWORK}/loadBalancers/lb").status_code == 200
    assert api.ask("DELETE", address).status_code == 200
    assert api.ask("DELETE", address).status_code == 204


def test_a_resource_that_is_named_often_is_read_once(api: Api, monkeypatch):
    make_group(api)
    probes = {f"p{place}": tcp(80) for place in range(50)}
    api.ask("PUT", f"{NETWORK}/loadBalancers/lb", body=make_balancer(probes))
    read = []

    def find(connection, identifier):
        read.append(identifier)
        return find_resource(connection, identifier)

    monkeypatch.setattr(references, "find_resource", find)
    rules = [
        {"name": name, "properties": {"probe": {"id": f"{IDS}/loadBalancers/LB/probes/{name}"}}}
        for name in probes
    ]
    body = make_balancer(loadBalancingRules=rules)
    assert api.ask("PUT", f"{NETWORK}/loadBalancers/other", body=body).status_code == 201
    assert len(read) == 1
    rules[7]["properties"]["probe"]["id"] += "x"
    refused = api.ask("PUT", f"{NETWORK}/loadBalancers/other", body=body)
    assert refused.json()["error"]["code"] == "InvalidResourceReference"


def test_unknown_groups_and_resources_are_told_apart(api: Api):
    for path in (f"{NETWORK}/loadBalancers", f"{NETWORK}/loadBalancers/lb"):
        assert api.ask("GET", path).json()["error"]["code"] == "ResourceGroupNotFound"
    make_group(api)
    missing = api.ask("GET", f"{NETWORK}/loadBalancers/lb")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")
    assert api.ask("GET", f"{NETWORK}/loadBalancers/lb/probes").status_code == 404


def test_scale_sets_follow_the_probe_that_they_go_by(api: Api):
    make_group(api)
    path = f"{NETWORK}/loadBalancers/lb"
    api.ask("PUT", path, body=make_balancer({"Web": tcp(80), "other": tcp(81)}))
    kept = refer_to_probe(f"{IDS}/loadBalancers/LB/probes/web")
    same = Health(probe=HealthProbe(protocol=Protocol.TCP, port=80))
    add_set(api, "web", group="rg1", health=same, document=kept)
    own = Health(probe=HealthProbe(protocol=Protocol.TCP, port=8080))
    add_set(api, "own", group="rg1", health=own, document=kept)  # changed by its YAML since
    add_set(api, "free", group="rg1", health=same)
    changed = make_balancer({"Web": tcp(443, numberOfProbes=2), "other": tcp(81)})
    assert api.ask("PUT", path, body=changed).status_code == 200
    probe = HealthProbe(protocol=Protocol.TCP, port=443, number_of_probes=2)
    assert load_spec(api, "web").health == Health(probe=probe)
    assert (load_spec(api, "own").health, load_spec(api, "free").health) == (own, same)


def test_a_probe_in_use_can_neither_go_nor_become_impossible(api: Api):
    make_group(api)
    path = f"{NETWORK}/loadBalancers/lb"
    api.ask("PUT", path, body=make_balancer({"web": tcp(80)}))
    kept = refer_to_probe(f"{IDS}/loadBalancers/lb/probes/web")
    health = Health(probe=HealthProbe(protocol=Protocol.TCP, port=80))
    add_set(api, "web", group="rg1", health=health, document=kept)
    before = load_everything(api)
    code = "LoadBalancerInUseByVirtualMachineScaleSet"
    for answer in (
        api.ask("DELETE", path),
        api.ask("PUT", path, body=make_balancer()),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)
    slow = api.ask("PUT", path, body=make_balancer({"web": tcp(80) | {"intervalInSeconds": 61}}))
    assert (slow.status_code, slow.json()["error"]["target"]) == (400, "web.intervalInSeconds")
    assert (load_everything(api), load_spec(api, "web").health) == (before, health)


def test_a_set_that_a_client_made_keeps_its_reference_and_what_it_names(api: Api):
    make_group(api)
    balancer = f"{NETWORK}/loadBalancers/lb"
    api.ask("PUT", balancer, body=make_balancer({"web": tcp(80)}))
    api.ask("PUT", f"{NETWORK}/virtualNetworks/vnet", body=VNET)
    probe = {"id": f"{IDS}/loadBalancers/lb/probes/web"}
    subnet = {"subnet": {"id": f"{IDS}/virtualNetworks/vnet/subnets/default"}}
    card = {"ipConfigurations": [{"name": "ip", "properties": subnet}]}
    network = {
        "healthProbe": probe,
        "networkInterfaceConfigurations": [{"name": "nic", "properties": card}],
    }
    image = {"publisher": "labctl", "offer": "tiny", "sku": "default", "version": "1.0.0"}
    profile = {"storageProfile": {"imageReference": image}, "networkProfile": network}
    body = {
        "location": "eastus",
        "sku": {"name": "Standard_B1s", "capacity": 1},
        "properties": {"upgradePolicy": {"mode": "Manual"}, "virtualMachineProfile": profile},
    }
    path = "resourceGroups/rg1/providers/Microsoft.Compute/virtualMachineScaleSets/web"
    made = api.ask("PUT", path, body=body)
    assert made.status_code == 201, made.text
    assert api.ask("PUT", balancer, body=make_balancer({"web": tcp(81)})).status_code == 200
    assert load_spec(api, "web").health.probe == HealthProbe(protocol=Protocol.TCP, port=81)
    shown = api.ask("GET", path).json()["properties"]["virtualMachineProfile"]["networkProfile"]
    assert shown["healthProbe"] == probe
    for used in ("virtualNetworks/vnet/subnets/default", "virtualNetworks/vnet"):
        assert api.ask("DELETE", f"{NETWORK}/{used}").status_code == 409


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("loadBalancers/lb", {}),
    ("loadBalancers/lb", {"location": "eastus", "properties": []}),
    ("loadBalancers/lb", {"location": "eastus", "identity": {"type": "SystemAssigned"}}),
    ("loadBalancers/a%20b", {"location": "eastus"}),
    ("virtualNetworks/v", {"location": "eastus"}),
    ("applicationGateways/a", {"location": "eastus"}),
    ("networkInterfaces/n", {"location": "eastus"}),
]


def test_what_is_refused_is_not_kept(api: Api):
    make_group(api)
    before = load_everything(api)
    for path, body in REFUSED:
        assert api.ask("PUT", f"{NETWORK}/{path}", body=body).status_code == 400
        assert load_everything(api) == before


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name", "properties", "port"]), inner)
    ),
    max_leaves=8,
)
PARTS = ["probes", "loadBalancingRules", "frontendIPConfigurations", "addressSpace", "subnets"]


# The API runs for all examples; each tells from what it found whether it changed anything.
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["loadBalancers", "virtualNetworks", "networkSecurityGroups"]),
    part=st.sampled_from(["", "/subnets/s", "/securityRules/s"]),
    body=st.fixed_dictionaries(
        {"location": st.just("eastus") | JSON},
        optional={
            "tags": JSON,
            "properties": st.dictionaries(st.sampled_from(PARTS), JSON) | JSON,
        },
    ),
)
def test_hostile_bodies_are_kept_or_refused_and_never_break_anything(
    api: Api, kind: str, part: str, body: dict[str, Json]
):
    if api.ask("HEAD", "resourceGroups/rg1").status_code == 404:
        make_group(api)
    before = load_everything(api)
    answer = api.ask("PUT", f"{NETWORK}/{kind}/x{part}", body=body)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert {"code", "message"} <= set(answer.json()["error"])
        assert load_everything(api) == before
    assert api.ask("GET", f"{NETWORK}/{kind}").status_code == 200
