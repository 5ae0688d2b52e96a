"""Scale sets in the store, as the API's tests need them; nothing of them is started."""

from datetime import UTC, datetime
from typing import Any

from labctl.controller.desired import apply_spec
from labctl.model.health_source import Health
from labctl.model.machine import ImageReference
from labctl.model.spec import ScaleSetSpec
from labctl.store.arm_resources import save_resource
from labctl.store.scale_sets import load_models
from tests.api.serving import SUBSCRIPTION, Api

Json = Any


def add_set(
    api: Api,
    name: str,
    *,
    group: str | None = None,
    health: Health | None = None,
    region: str = "local",
    document: dict[str, Json] | None = None,
) -> str:
    """A scale set; with a group it has a row of Azure's side, too. Returns its id."""
    spec = ScaleSetSpec(
        name=name.lower(),
        capacity=2,
        region=region,
        image=ImageReference(definition="tiny", version="1.0.0"),
        health=health or Health(),
    )
    now = datetime.now(UTC)
    identifier = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group or 'labctl'}"
        f"/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"
    )
    with api.desk.database.write() as connection:
        apply_spec(connection, spec, now=now)
        if group is not None:
            save_resource(
                connection,
                identifier,
                type="Microsoft.Compute/virtualMachineScaleSets",
                group=group,
                name=name,
                document=document or {},
                now=now,
            )
    return identifier


def refer_to_probe(probe: str) -> dict[str, Json]:
    """What is kept of a scale set that goes by a probe."""
    profile = {"networkProfile": {"healthProbe": {"id": probe}}}
    return {"properties": {"virtualMachineProfile": profile}}


def load_spec(api: Api, name: str) -> ScaleSetSpec:
    """The newest model of a scale set."""
    with api.desk.database.read() as connection:
        models = load_models(connection, name)
    return models[max(models)]


def make_group(api: Api, name: str = "rg1", location: str = "eastus") -> None:
    """A resource group."""
    answer = api.ask("PUT", f"resourceGroups/{name}", body={"location": location})
    assert answer.status_code in {200, 201}


def load_everything(api: Api) -> list[tuple[str, Json]]:
    """Every row of Azure's side, to see that nothing has changed."""
    from labctl.store.arm_resources import load_resources

    with api.desk.database.read() as connection:
        return [(row.id, row.document) for row in load_resources(connection)]
