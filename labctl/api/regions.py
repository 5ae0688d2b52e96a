"""The regions of a lab: what its scale sets, image versions and resources are said to be in."""

from sqlalchemy import Connection, select

from labctl.api.desk import Desk
from labctl.arm.errors import ArmError
from labctl.model.spec import DEFAULT_REGION
from labctl.store.arm_resources import load_resources
from labctl.store.scale_sets import load_models, load_scale_sets
from labctl.store.schema import image_replica


def load_regions(connection: Connection) -> list[str]:
    """Every region that is in use, and the one that is meant when none is named."""
    found = {DEFAULT_REGION}
    for row in load_scale_sets(connection):
        found.add(load_models(connection, row.name)[row.model_revision].region)
    found.update(connection.execute(select(image_replica.c.region).distinct()).scalars())
    for resource in load_resources(connection):
        location = resource.document.get("location")
        if isinstance(location, str):
            found.add(location)
    return sorted(found, key=lambda region: (region != DEFAULT_REGION, region))


def make_location(desk: Desk, region: str) -> dict[str, object]:
    """A region as clients list it."""
    return {
        "id": f"/subscriptions/{desk.subscription_id}/locations/{region}",
        "name": region,
        "type": "Region",
        "displayName": region,
        "regionalDisplayName": region,
        "metadata": {
            "regionType": "Physical",
            "regionCategory": "Recommended",
            "geography": "Lab",
            "geographyGroup": "Lab",
            "pairedRegion": [],
        },
    }


def refuse_unknown_namespace(namespace: str) -> ArmError:
    """404: a resource provider that a lab does not have."""
    return ArmError(
        404,
        "InvalidResourceNamespace",
        f"The resource namespace '{namespace[:90]}' is invalid: this lab has Microsoft.Compute, "
        "Microsoft.Network and Microsoft.Resources.",
        target=namespace[:90],
    )
