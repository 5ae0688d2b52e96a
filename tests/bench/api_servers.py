"""The API without TLS, and a bare server of the same framework, each in a process of its own.

Both run with the same settings of uvicorn on the same core, and end when their standard input does.
Both have a store that changes four times a second, or one that rests.
"""

import argparse
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from labctl.api.app import App
from labctl.api.desk import Desk
from labctl.api.protocol import BoundedProtocol
from labctl.api.routes import make_routes
from labctl.controller.board import Board
from labctl.controller.clock import now
from labctl.controller.desired import NO_CAPACITY
from labctl.model.instance import DomainFacts, Power
from labctl.planner import plan
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.instances import save_health
from labctl.store.scale_sets import load_view
from tests.api.serving import SUBSCRIPTION, TENANT

_BETWEEN = 0.25  # seconds between two changes


def make_bare(answers: Path) -> Starlette:
    """Answers with bytes that are there already, and with the same headers."""
    bodies = {path: body.encode() for path, body in json.loads(answers.read_text()).items()}

    async def answer(request: Request) -> Response:
        path = f"{request.url.path}?{request.url.query}"
        return Response(
            bodies[path],
            media_type="application/json; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    return Starlette(routes=[Route("/{path:path}", answer)])


def make_changes(desk: Desk, name: str) -> Callable[[], None]:
    """What a keeper does when the health of an instance is another: it is stored and pinned up."""
    with desk.database.read() as connection:
        view = load_view(connection, name, capacity=NO_CAPACITY)
    instances = tuple(
        replace(each, domain=DomainFacts(generation=each.generation, power=Power.RUNNING))
        for each in view.instances
    )
    view = replace(view, instances=instances)
    begun = plan(view, now())
    first, *others = instances
    turns = 0

    def change() -> None:
        nonlocal turns
        turns += 1
        since = now() - timedelta(seconds=turns % 7)
        health = replace(first.health, since=since, detail=f"HTTP 200, look {turns}")
        changed = replace(view, instances=(replace(first, health=health), *others))
        with desk.database.write() as connection:
            save_health(connection, first.name, health)
        desk.board.put(changed, begun, at=now())

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["labctl", "bare"])
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--cpu", type=int, required=True)
    parser.add_argument("--changing", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    logging.basicConfig(level=logging.WARNING)
    settings = Settings(state_dir=options.state_dir, uri="test:///default")
    with closing(Database(settings.database)) as database:
        desk = Desk(
            settings=settings,
            database=database,
            board=Board(),
            subscription_id=SUBSCRIPTION,
            tenant_id=TENANT,
        )
        change = make_changes(desk, "web")
        change()
        is_labctl = options.kind == "labctl"
        app = App(desk, make_routes()) if is_labctl else make_bare(options.answers)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host="127.0.0.1",
                port=0,
                http=BoundedProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=256,
                timeout_keep_alive=15,
            )
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        ended = threading.Event()

        def keep_changing() -> None:
            while not ended.wait(_BETWEEN):
                change()

        changing = threading.Thread(target=keep_changing) if options.changing else None
        while not server.started:
            thread.join(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        if changing is not None:
            changing.start()
        sys.stdin.read()
        ended.set()
        if changing is not None:
            changing.join()
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    main()
