"""Rolling upgrades of a scale set: start, cancel, approve; the latest one and the history."""

from datetime import timedelta

from labctl.api.call import Answer, Call
from labctl.api.desk import Desk
from labctl.api.handlers.schemas import INSTANCE_IDS, SET, SKIP_TOKEN, UPGRADE, make_list
from labctl.api.respond import accept, answer_page
from labctl.api.route import Route
from labctl.api.scale_set_documents import make_frame
from labctl.api.scale_set_ids import find_called_set
from labctl.api.wishes import add_ended, add_open
from labctl.arm.errors import ArmError, conflict, not_supported
from labctl.arm.upgrades import render_history, render_latest
from labctl.controller.desired import NO_CAPACITY
from labctl.controller.set_operations import (
    UPGRADE_AWAIT,
    UPGRADE_CANCEL,
    UPGRADE_START,
    find_joined,
)
from labctl.controller.upgrade_control import approve_batch
from labctl.controller.upgrades import cancel_upgrade, find_target
from labctl.model.access import Scope
from labctl.model.upgrade import Upgrade
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import find_running_upgrade, load_upgrades

_HISTORY_KEPT = timedelta(days=61)  # the page shows the attempts of two months
_HISTORY_SHOWN = 5


def start(desk: Desk, call: Call) -> Answer:
    """Bring every instance to the newest image version, in batches, gated by health.

    Whether the present health of the instances allows it turns out when it begins: the operation
    fails then.
    """
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        if found.row.is_deleting:
            raise conflict(f"The scale set '{found.id.name}' is being deleted.")
        view = load_view(connection, found.name, capacity=NO_CAPACITY, instances=())
        target = find_target(connection, view, None, now=call.now)
        running = find_running_upgrade(connection, found.name)
        joined = find_joined(connection, found.name, target)
        if running is not None and joined is None:
            raise _refuse_while_running(running)
        operation = add_open(
            connection,
            # A client that asks again waits for the one that it began.
            UPGRADE_START if joined is None else UPGRADE_AWAIT,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
            goal={} if joined is None else {"upgrade": joined},
        )
    return accept(desk, call, operation, location=view.spec.region)


def cancel(desk: Desk, call: Call) -> Answer:
    """Stop the running upgrade at the end of its batch."""
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        number = cancel_upgrade(connection, found.name, now=call.now)
        operation = add_open(
            connection,
            UPGRADE_CANCEL,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
            goal={"upgrade": number},
        )
    return accept(desk, call, operation, location=frame.location)


def approve(desk: Desk, call: Call) -> Answer:
    """Let the batch begin that waits for approval."""
    body = call.find_document() or {}
    given = body.get("instanceIds")
    if given not in (None, "*", ["*"]):
        raise not_supported(
            "A lab approves whole batches, not single instances: leave 'instanceIds' out, or "
            'give "*".',
            target="instanceIds",
        )
    with desk.database.write() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        approve_batch(connection, found.name, now=call.now, by=call.principal.name)
        operation = add_ended(
            connection,
            resource=str(found.id),
            scale_set=found.name,
            method="POST",
            who=call.principal.name,
            now=call.now,
        )
    return accept(desk, call, operation, location=frame.location)


def refuse_extension_upgrade(desk: Desk, call: Call) -> Answer:
    """Extensions of a lab are scripts of the model; nobody publishes newer versions of them."""
    with desk.database.read() as connection:
        find_called_set(connection, desk, call.parameters)
    raise not_supported(
        "Extensions of a lab are part of the model, and no publisher moves their versions. To run "
        "one again everywhere, change its 'forceUpdateTag'; in the modes Rolling and Automatic "
        "the model then goes to the instances by itself.",
        target="extensionRollingUpgrade",
    )


def get_latest(desk: Desk, call: Call) -> Answer:
    """The running upgrade, or the one that ended last."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        # An earlier scale set of the same name left its history in the store.
        newest = load_upgrades(connection, found.name, since=found.row.created_at, limit=1)
    if not newest:
        raise ArmError(
            404,
            "ResourceNotFound",
            f"The scale set '{found.id.name}' was never upgraded, so there is no latest rolling "
            "upgrade.",
            target=f"{found.id}/rollingUpgrades/latest",
        )
    identifier = str(found.id.child("rollingUpgrades", "latest"))
    return Answer(body=render_latest(newest[0], location=frame.location, identifier=identifier))


def list_history(desk: Desk, call: Call) -> Answer:
    """The attempts of two months, newest first; at most five, as Azure shows."""
    with desk.database.read() as connection:
        found = find_called_set(connection, desk, call.parameters)
        frame = make_frame(connection, desk, found)
        since = max(found.row.created_at, call.now - _HISTORY_KEPT)
        upgrades = load_upgrades(connection, found.name, since=since, limit=_HISTORY_SHOWN)

    def render(upgrade: Upgrade) -> object:
        return render_history(upgrade, location=frame.location, image=frame.image)

    return answer_page(call, upgrades, render=render)


def _refuse_while_running(running: Upgrade) -> ArmError:
    state = "is being cancelled" if running.cancel_asked_at else f"to {running.target} is running"
    return conflict(
        f"Rolling upgrade {running.id} of the scale set {state}. Wait for its end, or cancel it.",
        code="RollingUpgradeInProgress",
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{SET}/osRollingUpgrade",
        handler=start,
        scope=Scope.OPERATE,
        summary="Upgrade the OS disks to the newest version of the image, in batches",
        statuses=(202,),
    ),
    Route(
        method="POST",
        path=f"{SET}/extensionRollingUpgrade",
        handler=refuse_extension_upgrade,
        scope=Scope.OPERATE,
        summary="Refused: extensions of a lab have no versions of a publisher",
    ),
    Route(
        method="POST",
        path=f"{SET}/rollingUpgrades/cancel",
        handler=cancel,
        scope=Scope.OPERATE,
        summary="Stop the running upgrade at the end of its batch",
        statuses=(202,),
    ),
    Route(
        method="POST",
        path=f"{SET}/approveRollingUpgrade",
        handler=approve,
        scope=Scope.OPERATE,
        summary="Let the batch begin that waits for approval",
        request=INSTANCE_IDS,
        statuses=(202,),
    ),
    Route(
        method="GET",
        path=f"{SET}/rollingUpgrades/latest",
        handler=get_latest,
        summary="Show the running upgrade, or the one that ended last",
        response=UPGRADE,
    ),
    Route(
        method="GET",
        path=f"{SET}/osUpgradeHistory",
        handler=list_history,
        summary="List the upgrades of the last two months, newest first",
        query=SKIP_TOKEN,
        response=make_list(UPGRADE),
    ),
)
