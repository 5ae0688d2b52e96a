"""The API on a real socket, with a store and without VMs; for tests beside those on real VMs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import requests
import uvicorn

from labctl.api.app import App
from labctl.api.desk import Desk
from labctl.api.routes import make_routes
from labctl.controller.board import Board
from labctl.model.access import Scope
from labctl.model.image import ImageDefinition, ImageVersion, OsType, VersionNumber
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.gallery import add_version, ensure_definition
from labctl.store.tokens import add_token

SUBSCRIPTION = str(UUID(int=0x10))
TENANT = str(UUID(int=0x20))
VERSION = "2024-11-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A running API; calls use a token with the scope admin unless told otherwise."""

    desk: Desk
    url: str
    secrets: dict[Scope, str]

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        scope: Scope | None = Scope.ADMIN,
        version: str | None = VERSION,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> requests.Response:
        """Ask with JSON; `path` begins behind the subscription unless it begins with a slash."""
        whole = path if path.startswith("/") else f"/subscriptions/{SUBSCRIPTION}/{path}"
        sent = dict(headers or {})
        if scope is not None:
            sent["Authorization"] = f"Bearer {self.secrets[scope]}"
        params = dict(query or {}) | ({} if version is None else {"api-version": version})
        return requests.request(
            method, f"{self.url}{whole}", json=body, headers=sent, params=params, timeout=30
        )


@contextmanager
def serving(tmp_path: Path) -> Iterator[Api]:
    """Serve a fresh lab with the images tiny/1.0.0 and tiny/1.1.0 (rows only, no files)."""
    settings = Settings(state_dir=tmp_path / "state", uri="test:///default")
    database = Database(settings.database)
    now = datetime.now(UTC)
    secrets = {scope: f"secret-of-{scope}" for scope in Scope}
    with database.write() as connection:
        for scope, secret in secrets.items():
            add_token(connection, name=scope, scope=scope, secret=secret, expires_at=None, now=now)
        ensure_definition(connection, ImageDefinition(name="tiny", os_type=OsType.LINUX), now)
        for minor in (0, 1):
            add_version(
                connection,
                ImageVersion(
                    definition="tiny",
                    version=VersionNumber(1, minor, 0),
                    digest=f"{minor:064x}",
                    file_size=2**20,
                    virtual_size=2**26,
                    created_at=now,
                    published_at=now,
                ),
            )
    desk = Desk(
        settings=settings,
        database=database,
        board=Board(),
        subscription_id=SUBSCRIPTION,
        tenant_id=TENANT,
    )
    config = uvicorn.Config(
        App(desk, make_routes()), host="127.0.0.1", port=0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Api(desk=desk, url=f"http://127.0.0.1:{port}", secrets=secrets)
    finally:
        desk.stop.set()
        server.should_exit = True
        thread.join(10)
        database.close()
