"""Types that clients look for and a lab does not have: empty lists, and refusals that say why."""

from functools import partial

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.groups import check_group
from labctl.api.route import Route
from labctl.arm.errors import not_supported, resource_not_found
from labctl.model.access import Scope

# Each with what takes its place. To keep them would be silently wrong: whoever makes one expects
# something to happen.
_ABSENT = {
    "Microsoft.Compute": {
        "availabilitySets": "Fault and update domains belong to scale sets.",
        "disks": "Disks belong to the instances of scale sets.",
        "images": "Images are versions of an image definition in a gallery.",
        "proximityPlacementGroups": "All instances are near: they share a host.",
        "snapshots": "Images are imported from a file or a URL.",
        "virtualMachines": "Make a scale set with the capacity 1.",
    },
    "Microsoft.Network": {
        "applicationGateways": "Nothing forwards requests to instances; for health use the probe "
        "of a load balancer, or the application health extension.",
        "networkInterfaces": "Interfaces belong to the instances of scale sets.",
    },
    "Microsoft.Insights": {
        "autoscaleSettings": "Nobody would scale by it; set sku.capacity.",
    },
    "Microsoft.Storage": {
        "storageAccounts": "There is no storage service; serial logs are kept by labctl, see "
        "`labctl logs`.",
    },
}


def list_none(desk: Desk, call: Call) -> Answer:
    """An empty list; clients look here before they make something else."""
    if "group" in call.parameters:
        with desk.database.read() as connection:
            check_group(connection, desk, call.parameters["group"])
    return Answer(body={"value": []})


def get_none(kind: str, desk: Desk, call: Call) -> Answer:
    """There is none, whatever its name."""
    with desk.database.read() as connection:
        group = check_group(connection, desk, call.parameters["group"])
    raise resource_not_found(f"{group.id}/providers/{kind}/{call.parameters['name'][:90]}")


def refuse(kind: str, reason: str, desk: Desk, call: Call) -> Answer:
    """Say what to do instead."""
    with desk.database.read() as connection:
        check_group(connection, desk, call.parameters["group"])
    raise not_supported(f"A lab has no resources of the type {kind}. {reason}", target="type")


_LIST = {
    "type": "object",
    "required": ["value"],
    "properties": {"value": {"type": "array", "maxItems": 0}},
}


def _make_routes(namespace: str, name: str, reason: str) -> list[Route]:
    kind = f"{namespace}/{name}"
    below = f"/providers/{namespace}/{name}"
    several = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}{below}"
    lists = [
        Route(
            method="GET",
            path=path,
            handler=list_none,
            summary=f"List {name}: a lab has none",
            response=_LIST,
        )
        for path in (f"/subscriptions/{{subscription}}{below}", several)
    ]
    return [
        *lists,
        Route(
            method="GET",
            path=f"{several}/{{name}}",
            handler=partial(get_none, kind),
            summary=f"Show one of {name}: a lab has none",
            statuses=(),
        ),
        Route(
            method="PUT",
            path=f"{several}/{{name}}",
            handler=partial(refuse, kind, reason),
            scope=Scope.OPERATE,
            summary=f"Refused, with what takes the place of {name}",
            request={"type": "object"},
            statuses=(),
        ),
    ]


ROUTES: tuple[Route, ...] = tuple(
    route
    for namespace, kinds in _ABSENT.items()
    for name, reason in kinds.items()
    for route in _make_routes(namespace, name, reason)
)
