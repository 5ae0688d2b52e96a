"""Scale sets for tests of the API: instances as rows, sights made by hand, operations stepped."""

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from labctl.api.scale_set_steps import make_delete_step
from labctl.controller.clock import now as read_clock
from labctl.controller.desired import NO_CAPACITY
from labctl.controller.lab import Lab
from labctl.controller.operations import Ending, Operations
from labctl.controller.record import record
from labctl.controller.set_operations import SET_DELETE, SetSteps
from labctl.model.instance import DomainFacts, Health, HealthState, Power, Wanted
from labctl.model.plan import CreateInstance, Plan, ScaleSet
from labctl.planner import plan as make_plan
from labctl.store.instances import change_generation, save_extension_run, save_health
from labctl.store.operations import load_open_operations
from labctl.store.scale_sets import load_view
from tests.api.serving import Api
from tests.controller.identities import make_identity

GROUP = "resourceGroups/labctl/providers/Microsoft.Compute/virtualMachineScaleSets"
IMAGE = {"publisher": "labctl", "offer": "tiny", "sku": "default", "version": "latest"}
HEALTH = {
    "name": "HealthExtension",
    "properties": {
        "publisher": "Microsoft.ManagedServices",
        "type": "ApplicationHealthLinux",
        "typeHandlerVersion": "1.0",
        "settings": {"protocol": "http", "port": 80, "requestPath": "/health"},
    },
}
SCRIPT = {
    "name": "script",
    "properties": {
        "publisher": "Microsoft.Azure.Extensions",
        "type": "CustomScript",
        "typeHandlerVersion": "2.1",
        "settings": {"commandToExecute": "true"},
    },
}


def make_body(capacity: int = 2, *, extensions: tuple[Any, ...] = (), **properties: Any) -> Any:
    """What a client sends to make a scale set."""
    return {
        "location": "local",
        "sku": {"name": "Standard_B1s", "capacity": capacity},
        "properties": {
            "upgradePolicy": {"mode": "Manual"},
            "virtualMachineProfile": {
                "osProfile": {"computerNamePrefix": "web", "adminUsername": "lab"},
                "storageProfile": {
                    "imageReference": IMAGE,
                    "dataDisks": [{"lun": 0, "createOption": "Empty", "diskSizeGB": 1}],
                },
                "extensionProfile": {"extensions": list(extensions)},
            },
            **properties,
        },
    }


def put_set(api: Api, name: str = "Web", capacity: int = 2, **body: Any) -> Any:
    """Make a scale set by the API."""
    answer = api.ask("PUT", f"{GROUP}/{name}", body=make_body(capacity, **body))
    assert answer.status_code == 201, answer.text
    return answer


def load(api: Api, name: str = "web") -> ScaleSet:
    """The planner's view, unobserved."""
    with api.desk.database.read() as connection:
        return load_view(connection, name, capacity=NO_CAPACITY)


def add_instances(api: Api, *ordinals: int, name: str = "web") -> None:
    """Record instances, as the reconciler does on the planner's word."""
    view = load(api, name)
    decisions = tuple(CreateInstance(ordinal=n, reason="capacity") for n in ordinals)
    with api.desk.database.write() as connection:
        record(connection, view, decisions, now=read_clock(), new_identity=make_identity)


def make_ready(api: Api, *ordinals: int, name: str = "web") -> None:
    """Record that instances have come up well."""
    now = read_clock()
    view = load(api, name)
    with api.desk.database.write() as connection:
        for instance in view.instances:
            if instance.ordinal in ordinals:
                change_generation(
                    connection,
                    instance.name,
                    instance.generation,
                    prepared=True,
                    started_at=now,
                    ready_at=now,
                )
                health = Health(state=HealthState.HEALTHY, since=now, detail="HTTP 200")
                save_health(connection, instance.name, health)


def save_run(api: Api, instance: str, run: Any, *, generation: int = 1) -> None:
    """Record the run of an extension."""
    with api.desk.database.write() as connection:
        save_extension_run(connection, instance, generation, run)


def see(
    api: Api,
    name: str = "web",
    *,
    power: Power | None = None,
    plan: Plan | None = None,
    at: datetime | None = None,
) -> None:
    """Pin up what a keeper would see: everything is on or off as it is wanted."""
    view = load(api, name)
    instances = tuple(
        replace(
            each,
            domain=DomainFacts(
                generation=each.generation,
                power=power or (Power.RUNNING if each.wanted is Wanted.RUNNING else Power.STOPPED),
            ),
        )
        for each in view.instances
    )
    view = replace(view, instances=instances)
    now = read_clock()
    api.desk.board.put(view, make_plan(view, now) if plan is None else plan, at=at or now)


def step(api: Api, *, seen: ScaleSet | None = None) -> list[Ending | None]:
    """Take every open operation one step further; `seen`: what a look at the set shows."""
    runner = make_runner(api, seen=seen)
    with api.desk.database.read() as connection:
        operations = load_open_operations(connection)
    return [runner.step_once(operation) for operation in operations]


def make_runner(api: Api, *, seen: ScaleSet | None = None) -> Operations:
    """What takes operations further, one step when told so."""
    lab = cast("Lab", SimpleNamespace(database=api.desk.database, settings=api.desk.settings))
    steps = SetSteps(
        lab,
        api.desk.board,
        ask=lambda name: None,
        look=lambda name: (seen or load(api, name), Plan()),
    )
    quick = {**steps.quick, SET_DELETE: make_delete_step(api.desk, steps)}
    return Operations(api.desk.database, api.desk.board, quick=quick, slow=steps.slow)


def poll(api: Api, answer: Any) -> Any:
    """The body that Azure-AsyncOperation of an answer leads to."""
    path = answer.headers["Azure-AsyncOperation"].removeprefix(api.url).partition("?")[0]
    return api.ask("GET", path).json()


def monitor(api: Api, answer: Any) -> Any:
    """The answer that Location leads to."""
    path = answer.headers["Location"].removeprefix(api.url).partition("?")[0]
    return api.ask("GET", path, query={"monitor": "true"})
