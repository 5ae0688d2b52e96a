"""A lab whose routes are the network's, deployments, and a type that takes its time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labctl.api.call import Answer, Call
from labctl.api.deploy import make_deployment_step
from labctl.api.desk import Desk
from labctl.api.errand import Errand
from labctl.api.handlers import deployment_operations, network, resource_groups
from labctl.api.handlers.deployments import make_deployment_routes
from labctl.api.respond import accept
from labctl.api.route import Route, Routes
from labctl.arm.errors import ArmError
from labctl.controller.board import Board
from labctl.controller.operations import Ending, Operations, Step
from labctl.model.access import Principal, Scope
from labctl.settings import Settings
from labctl.store.arm_resources import find_resource, save_resource
from labctl.store.database import Database
from labctl.store.operations import add_operation, load_open_operations
from tests.api.serving import SUBSCRIPTION, TENANT, VERSION

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BASE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups"
SLOW = "Microsoft.Lab/slow"
_SLOW_PATH = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Lab/slow"


@dataclass(slots=True)
class World:
    """A desk, its routes, and what was PUT to the slow type."""

    desk: Desk
    routes: Routes
    puts: list[str] = field(default_factory=list)
    before_put: Callable[[str], None] = lambda name: None
    endings: dict[str, Ending] = field(default_factory=dict)
    is_held: bool = False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        scope: Scope = Scope.ADMIN,
        principal: Principal | None = None,
    ) -> Answer:
        """An answer of the handlers, without HTTP."""
        errand = Errand(
            desk=self.desk,
            routes=self.routes,
            principal=principal or Principal(id="i", name="n", scope=scope),
            base_url="https://lab:8443",
            now=NOW,
            request_id="00000000-0000-0000-0000-0000000000aa",
        )
        return errand.send(method, f"{BASE}/{path}", api_version=VERSION, body=body)

    def refuse(self, method: str, path: str, body: Any = None, **further: Any) -> ArmError:
        """The refusal of a call that must not be answered."""
        try:
            answer = self.ask(method, path, body, **further)
        except ArmError as error:
            return error
        raise AssertionError(answer)

    def begin(self, name: str, template: Any, parameters: Any = None, **further: Any) -> Answer:
        """PUT a deployment into rg1."""
        return self.ask("PUT", deployment(name), wish(template, parameters), **further)

    def show(self, name: str) -> dict[str, Any]:
        """The properties of a deployment."""
        return self.ask("GET", deployment(name)).body["properties"]

    def make_steps(self) -> dict[str, Step]:
        """What a process makes once; a new process makes new ones."""
        step = make_deployment_step(self.desk, self.routes, lambda: NOW)

        def end(operation: Any) -> Ending | None:
            return None if self.is_held else self.endings.get(operation.resource, Ending())

        return {"deployment": step, "slow": end}

    def take_steps(self, rounds: int = 20) -> None:
        """What the thread of operations does, until nothing is open."""
        runner = Operations(self.desk.database, self.desk.board, quick=self.make_steps(), slow={})
        for _ in range(rounds):
            with self.desk.database.read() as connection:
                operations = load_open_operations(connection)
            for operation in operations:
                runner.step_once(operation)
            if not operations:
                return


def deployment(name: str) -> str:
    return f"rg1/providers/Microsoft.Resources/deployments/{name}"


def wish(template: Any, parameters: Any = None) -> dict[str, Any]:
    return {"properties": {"template": template, "parameters": parameters or {}}}


def slow(name: str, **further: Any) -> dict[str, Any]:
    return {"type": SLOW, "apiVersion": VERSION, "name": name, "properties": {}, **further}


@cache
def _make_store() -> bytes:
    """A store with its tables, which take longer to make than most tests."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "labctl.db"
        Database(path).close()
        return path.read_bytes()


def make_world(path: Path) -> World:
    settings = Settings(state_dir=path, uri="test:///default")
    settings.database.write_bytes(_make_store())
    database = Database(settings.database)
    desk = Desk(
        settings=settings,
        database=database,
        board=Board(),
        subscription_id=SUBSCRIPTION,
        tenant_id=TENANT,
    )
    known: list[Routes] = []
    world = World(desk=desk, routes=Routes(()))

    def put_slow(desk: Desk, call: Call) -> Answer:
        name = call.parameters["name"]
        if desk is world.desk:  # and not a rehearsal's
            world.before_put(name)
            world.puts.append(name)
        body = call.read_document()
        if "refuse" in body["properties"]:
            raise ArmError(400, "Refused", "not this one")
        with desk.database.write() as connection:
            save_resource(
                connection,
                call.path,
                type=SLOW,
                group="rg1",
                name=name,
                document=body,
                now=call.now,
            )
            operation = add_operation(
                connection, kind="slow", resource=call.path, who="n", now=call.now
            )
        return accept(desk, call, operation, status=201, body=body)

    def get_slow(desk: Desk, call: Call) -> Answer:
        with desk.database.read() as connection:
            row = find_resource(connection, call.path)
        if row is None:
            raise ArmError(404, "ResourceNotFound", "no")
        return Answer(body={"id": row.id, **row.document})

    known.append(
        Routes(
            (
                *resource_groups.ROUTES,
                *network.ROUTES,
                *deployment_operations.ROUTES,
                *make_deployment_routes(lambda: known[0]),
                Route(
                    method="PUT",
                    path=f"{_SLOW_PATH}/{{name}}",
                    handler=put_slow,
                    scope=Scope.OPERATE,
                    summary="",
                ),
                Route(method="GET", path=f"{_SLOW_PATH}/{{name}}", handler=get_slow, summary=""),
                Route(
                    method="PUT",
                    path=f"{_SLOW_PATH}/{{name}}/files/{{file}}",
                    handler=put_slow,
                    scope=Scope.ADMIN,
                    summary="",
                ),
            )
        )
    )
    world.routes = known[0]
    world.ask("PUT", "rg1", {"location": "lab1"})
    return world
