from dataclasses import replace
from datetime import UTC, datetime

import pytest

from labctl.api.group_delete import make_group_step
from labctl.controller.operations import Ending, Step
from labctl.errors import RefusedError
from labctl.model.health_source import Health, HealthProbe, Protocol
from labctl.model.image import ImageDefinition, OsType
from labctl.store.arm_resources import save_resource
from labctl.store.gallery import add_version, ensure_definition, find_definition, load_versions
from labctl.store.operations import Operation, load_open_operations
from labctl.store.scale_sets import find_scale_set, remove_scale_set
from tests.api.lab_parts import add_set, load_everything, make_group, refer_to_probe
from tests.api.serving import SUBSCRIPTION, Api

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1"


def begin(api: Api) -> tuple[Step, Operation]:
    assert api.ask("DELETE", GROUP).status_code == 202
    with api.desk.database.read() as connection:
        (operation,) = load_open_operations(connection)
    return make_group_step(api.desk), operation


def test_scale_sets_go_first_and_then_everything(api: Api):
    make_group(api)
    make_group(api, "rg2")
    api.ask("PUT", f"{GROUP}/providers/Microsoft.Network/natGateways/n", body={"location": "a"})
    add_set(api, "Web", group="rg1")
    add_set(api, "other", group="rg2")
    step, operation = begin(api)
    for _ in range(2):  # the second time it is asked for already
        assert step(operation) is None
    with api.desk.database.write() as connection:
        row, other = (find_scale_set(connection, name) for name in ("web", "other"))
        assert [each.is_deleting for each in (row, other) if each] == [True, False]
        remove_scale_set(connection, "web")
    for _ in range(2):  # killed before it was written down that it is over
        assert step(operation) == Ending()
    assert api.ask("HEAD", GROUP).status_code == 404
    assert [name.split("/")[4] for name, _ in load_everything(api)] == ["rg2", "rg2"]


def test_images_of_its_galleries_go_unless_they_are_in_use(api: Api):
    make_group(api)
    now = datetime.now(UTC)
    kind = "Microsoft.Compute/galleries/images"
    with api.desk.database.write() as connection:
        ensure_definition(connection, ImageDefinition(name="mine", os_type=OsType.LINUX), now)
        for name in ("Mine", "tiny"):
            identifier = f"{GROUP}/providers/Microsoft.Compute/galleries/g/images/{name}"
            save_resource(
                connection,
                identifier,
                type=kind,
                group="rg1",
                name=name,
                document={},
                now=now,
            )
    add_set(api, "web")  # in another group, of tiny
    step, operation = begin(api)
    before = load_everything(api)
    with pytest.raises(RefusedError, match=r"tiny/1\.0\.0 is in use"):
        step(operation)  # which ends the operation
    assert load_everything(api) == before
    with api.desk.database.write() as connection:
        assert find_definition(connection, "mine") is not None
        remove_scale_set(connection, "web")
    assert step(operation) == Ending()
    with api.desk.database.read() as connection:
        assert find_definition(connection, "mine") is None


def test_an_image_that_a_scale_set_elsewhere_follows_keeps_its_group(api: Api):
    make_group(api)
    now = datetime.now(UTC)
    with api.desk.database.write() as connection:
        save_resource(
            connection,
            f"{GROUP}/providers/Microsoft.Compute/galleries/g/images/tiny",
            type="Microsoft.Compute/galleries/images",
            group="rg1",
            name="tiny",
            document={},
            now=now,
        )
        ensure_definition(connection, ImageDefinition(name="same", os_type=OsType.LINUX), now)
        for image in load_versions(connection, "tiny"):  # the files have a keeper
            add_version(connection, replace(image, definition="same"))
    add_set(api, "web")  # in another group, of tiny
    step, operation = begin(api)
    before = load_everything(api)
    ending = step(operation)
    assert "'tiny' is what these scale sets follow: web" in str(ending and ending.error)
    assert load_everything(api) == before
    with api.desk.database.read() as connection:
        assert len(load_versions(connection, "tiny")) == 2


def test_a_group_whose_probe_is_needed_elsewhere_stays(api: Api):
    make_group(api)
    make_group(api, "rg2")
    balancer = f"{GROUP}/providers/Microsoft.Network/loadBalancers/lb"
    probe = {"name": "p", "properties": {"protocol": "Tcp", "port": 22, "intervalInSeconds": 5}}
    body = {"location": "eastus", "properties": {"probes": [probe]}}
    assert api.ask("PUT", balancer, body=body).status_code == 201
    kept = refer_to_probe(f"{balancer}/probes/p")
    health = Health(probe=HealthProbe(protocol=Protocol.TCP, port=22))
    add_set(api, "web", group="rg2", health=health, document=kept)
    refused = api.ask("DELETE", GROUP)
    code = "LoadBalancerInUseByVirtualMachineScaleSet"
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, code)
    assert api.ask("GET", GROUP).json()["properties"]["provisioningState"] == "Succeeded"
    add_set(api, "late", group="rg1")
    with api.desk.database.write() as connection:
        remove_scale_set(connection, "web")
    step, operation = begin(api)
    assert step(operation) is None
    add_set(api, "web", group="rg2", health=health, document=kept)  # came in the meantime
    with api.desk.database.write() as connection:
        remove_scale_set(connection, "late")
    ending = step(operation)
    assert ((ending and ending.error) or {}).get("code") == code
    assert api.ask("HEAD", GROUP).status_code == 204
