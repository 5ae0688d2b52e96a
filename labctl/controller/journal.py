"""Writes down what the hands of the controller do, and what goes wrong."""

from labctl.controller.clock import now
from labctl.model.event import EventKind
from labctl.model.instance import Failure, Instance, Rung
from labctl.model.notification import Topic
from labctl.model.plan import ScaleSet
from labctl.store.database import Database
from labctl.store.events import add_event
from labctl.store.instances import save_failure


def note(
    database: Database,
    view: ScaleSet,
    instance: Instance,
    kind: EventKind,
    message: str,
    *,
    detail: str = "",
    topic: Topic | None = None,
) -> None:
    """Record one event of an instance."""
    with database.write() as connection:
        add_event(
            connection,
            at=now(),
            scale_set=view.name,
            instance=instance.name,
            upgrade=view.upgrade.id if view.upgrade else None,
            kind=kind,
            message=message,
            detail=detail,
            topic=topic,
        )


def fail(
    database: Database,
    view: ScaleSet,
    instance: Instance,
    rung: Rung,
    message: str,
    *,
    detail: str = "",
) -> None:
    """Record why an instance does not get further on its present OS disk."""
    moment = now()
    with database.write() as connection:
        failure = Failure(rung=rung, message=message, at=moment)
        save_failure(connection, instance.name, instance.generation, failure)
        add_event(
            connection,
            at=moment,
            scale_set=view.name,
            instance=instance.name,
            upgrade=view.upgrade.id if view.upgrade else None,
            kind=EventKind.FAILURE,
            message=f"failed at {rung.value}: {message}",
            detail=detail,
        )
