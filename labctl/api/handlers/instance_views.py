"""What a scale set, or one of its instances, is doing."""

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.handlers.schemas import INSTANCE, INSTANCE_VIEW, SET
from labctl.api.judging import find_key, load_shown
from labctl.api.route import Route
from labctl.api.scale_set_documents import find_set_state, load_spec, make_frame
from labctl.api.scale_set_ids import find_called_set
from labctl.arm.instance_views import render_instance_view, render_set_view
from labctl.controller.set_operations import SET_APPLY
from labctl.model.repair import RepairService
from labctl.store.instance_index import load_instance_keys
from labctl.store.operations import find_last_of_kind


def get_set_view(desk: Desk, call: Call) -> Answer:
    """How many instances are in which state, and whether unhealthy ones are repaired."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        keys = load_instance_keys(connection, found.name)
        judged = load_shown(connection, desk, found, frame, keys, now=call.now)
        state = find_set_state(connection, desk, found)
        row, spec = found.row, load_spec(connection, found)
        last = find_last_of_kind(connection, found.name, SET_APPLY, since=row.created_at)
    service = RepairService(suspended_at=row.repairs_suspended_at)
    error = last.error if last is not None else None
    body = render_set_view(
        judged,
        state=state,
        at=(last.ended_at if last else None) or row.created_at,
        message="" if error is None else str(error.get("message", "")),
        repair_state=service.state(is_enabled=spec.automatic_repairs_policy.enabled).value,
    )
    return Answer(body=body)


def get_view(desk: Desk, call: Call) -> Answer:
    """Provisioning, power, health and extensions of one instance."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        key = find_key(connection, found, call.parameters["instance"])
        (judged,) = load_shown(connection, desk, found, frame, [key], now=call.now)
    return Answer(body=render_instance_view(judged))


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{SET}/instanceView",
        handler=get_set_view,
        summary="Tell how many instances are in which state",
        is_kept=True,
    ),
    Route(
        method="GET",
        path=f"{INSTANCE}/instanceView",
        handler=get_view,
        summary="Tell what an instance is doing",
        is_kept=True,
        response=INSTANCE_VIEW,
    ),
)
