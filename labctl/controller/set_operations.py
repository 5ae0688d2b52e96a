"""How operations on scale sets come to their ends: read off the store and the latest look."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from labctl.arm.upgrades import find_details
from labctl.controller.board import Board, Sight
from labctl.controller.clock import now as read_clock
from labctl.controller.goal import (
    Goal,
    find_reason_to_give_up,
    instances_as_wanted,
    model_applied,
)
from labctl.controller.lab import Lab
from labctl.controller.onlooker import Look, Onlooker
from labctl.controller.operations import Ending, Step
from labctl.controller.record import is_overtaken
from labctl.controller.resources import require_for_upgrade
from labctl.controller.upgrades import (
    NothingToUpgradeError,
    Target,
    find_same_upgrade,
    find_target,
    start_upgrade,
)
from labctl.controller.work import look_once
from labctl.errors import RefusedError
from labctl.model.instance import Instance, Rung, Wanted
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import StartedBy, Upgrade, UpgradeCode, UpgradeErrorCode
from labctl.planner.health import find_failure, judge
from labctl.planner.situation import survey
from labctl.store.database import Database
from labctl.store.instance_index import load_instance_keys
from labctl.store.instances import load_instances
from labctl.store.operations import Operation, change_goal, find_operation
from labctl.store.scale_sets import find_scale_set
from labctl.store.upgrades import find_running_upgrade, find_upgrade, load_upgrades

SET_APPLY = "set-apply"  # PUT and PATCH
SET_DELETE = "set-delete"
INSTANCES_APPLY = "instances-apply"  # start, stop, restart, reimage, update
INSTANCES_DELETE = "instances-delete"
UPGRADE_START = "upgrade-start"
UPGRADE_AWAIT = "upgrade-await"  # one that has begun
UPGRADE_CANCEL = "upgrade-cancel"
AT_ONCE = "at-once"  # over before anybody asks
MADE_AT = "madeAt"  # in the goal: when the scale set was made, for others may get its name

_DETAILS = 100  # instances that are told of; a scale set may have 1000
_CODES = {
    Rung.POWER_ON: "OSProvisioningTimedOut",
    Rung.SSH: "OSProvisioningTimedOut",
    Rung.CUSTOM_DATA: "OSProvisioningClientError",
    Rung.EXTENSIONS: "VMExtensionProvisioningError",
    Rung.HEALTH: "VMNotHealthy",
}

Json = Any  # what json.loads gives


class SetSteps:
    """The steps, for the thread that takes operations further."""

    def __init__(
        self,
        lab: Lab,
        board: Board,
        *,
        ask: Callable[[str], None] | None = None,
        look: Look | None = None,
    ) -> None:
        """`ask` has somebody look at a scale set soon, `look` does it now: both have defaults."""
        self._lab = lab
        self._board = board
        self._ask = Onlooker(lab, board).ask if ask is None else ask
        self._look = partial(look_once, lab) if look is None else look

    @property
    def quick(self) -> Mapping[str, Step]:
        """Those that only look."""
        return {
            SET_APPLY: self.end_apply,
            SET_DELETE: self.end_delete,
            INSTANCES_APPLY: self.end_instances,
            INSTANCES_DELETE: self.end_removal,
            UPGRADE_AWAIT: self.end_upgrade,
            UPGRADE_CANCEL: self.end_cancel,
            AT_ONCE: lambda _: Ending(),
        }

    @property
    def slow(self) -> Mapping[str, Step]:
        """Those that ask instances for their health before they begin."""
        return {UPGRADE_START: self.begin_upgrade}

    def end_apply(self, operation: Operation) -> Ending | None:
        """A changed model is in force."""
        database, name = self._lab.database, operation.scale_set or ""

        def find_newest() -> Upgrade | None:
            with database.read() as connection:
                return next(iter(load_upgrades(connection, name, limit=1)), None)

        goal = model_applied(
            find_newest,
            after=int(operation.goal.get("after", 0)),
            since=datetime.fromisoformat(operation.goal["since"]),
            revision=operation.goal.get("revision"),
        )
        return self._judge(operation, goal, names=None)

    def end_instances(self, operation: Operation) -> Ending | None:
        """These instances are as their user wants them."""
        names = frozenset(operation.goal.get("instances", ()))
        if not names:
            return Ending()
        return self._judge(operation, instances_as_wanted(names), names=names)

    def end_removal(self, operation: Operation) -> Ending | None:
        """These instances are gone; others of their names may have come since."""
        wanted = dict(operation.goal.get("instances", {}))
        with self._lab.database.read() as connection:
            keys = load_instance_keys(connection, operation.scale_set or "")
        left = {k.name for k in keys if wanted.get(k.name) == k.created_at.isoformat()}
        if not left:
            return Ending()
        sight = self._find_sight(operation)
        return None if sight is None else _describe_refused_drains(sight, operation, left)

    def end_delete(self, operation: Operation) -> Ending | None:
        """The scale set is gone."""
        return None if self._exists(operation) else Ending()

    def end_cancel(self, operation: Operation) -> Ending | None:
        """The upgrade has ended, however it has."""
        with self._lab.database.read() as connection:
            upgrade = find_upgrade(connection, int(operation.goal["upgrade"]))
        return Ending() if upgrade is None or upgrade.code.is_final else None

    def end_upgrade(self, operation: Operation) -> Ending | None:
        """The upgrade has a final code."""
        number = int(operation.goal["upgrade"])
        with self._lab.database.read() as connection:
            upgrade = find_upgrade(connection, number)
        if upgrade is None:
            return _fail("OperationNotAllowed", f"upgrade {number} is gone")
        return describe_upgrade_end(upgrade)

    def begin_upgrade(self, operation: Operation) -> Ending | None:
        """Begin an upgrade as the command does; from then on `end_upgrade` waits for its end."""
        if not self._exists(operation):
            return _fail("OperationNotAllowed", "the scale set was deleted meanwhile")
        lab, name = self._lab, operation.scale_set or ""
        view, _ = self._look(name)
        require_for_upgrade(lab, view, None, restores=False)
        now = read_clock()
        try:
            with lab.database.write() as connection:
                present = find_operation(connection, operation.id)
                if present is None or present.kind != operation.kind:
                    return None  # it has begun meanwhile
                target = find_target(connection, view, None, now=now)
                number = find_joined(connection, name, target)
                if number is None:
                    number = start_upgrade(
                        connection,
                        view,
                        target,
                        restores=False,
                        started_by=StartedBy.USER,
                        now=now,
                    )
                # In one transaction: after a crash it is waited for, and not begun again.
                goal = {**operation.goal, "upgrade": number}
                change_goal(connection, operation.id, goal, kind=UPGRADE_AWAIT)
        except NothingToUpgradeError:
            return Ending()
        except RefusedError as error:
            return _describe_refusal(error, view)
        return None

    def _exists(self, operation: Operation) -> bool:
        with self._lab.database.read() as connection:
            row = find_scale_set(connection, operation.scale_set or "")
        made_at = operation.goal.get(MADE_AT)  # by this and not by time: a clock may be set back
        return row is not None and row.created_at.isoformat() == made_at

    def _judge(
        self, operation: Operation, goal: Goal, *, names: Collection[str] | None
    ) -> Ending | None:
        now = read_clock()
        if not self._exists(operation):
            return _fail("OperationNotAllowed", "the scale set was deleted meanwhile")
        sight = self._find_sight(operation)
        if sight is None:
            return None
        outcome = goal(sight.view, sight.plan, now)
        if outcome is None:
            ending = _describe_refused_drains(sight, operation, names)
        elif outcome.succeeded:
            ending = Ending()
        else:
            details = find_broken(sight.view, now, names=names)
            ending = _fail("VMScaleSetOperationFailed", outcome.message, details)
        if ending is None or is_older_than_wishes(self._lab.database, sight.view):
            return None
        return ending

    def _find_sight(self, operation: Operation) -> Sight | None:
        """The latest look; None: it is from before the wish, and tells nothing of it."""
        name = operation.scale_set or ""
        self._ask(name)
        sight = self._board.find(name)
        # A clock that was set back must not let it wait until that moment comes again.
        if sight is None or sight.at < operation.started_at <= read_clock():
            return None
        return sight


def find_joined(connection: Connection, scale_set: str, target: Target) -> int | None:
    """The running upgrade that brings the same, whoever began it; None: there is none to join."""
    running = find_running_upgrade(connection, scale_set)
    if running is None or running.cancel_asked_at is not None:
        return None
    return find_same_upgrade(connection, scale_set, target, restores=running.restores)


def is_older_than_wishes(database: Database, view: ScaleSet) -> bool:
    """Was something asked for that this look does not show yet?"""
    with database.read() as connection:
        if find_scale_set(connection, view.name) is None:
            return True
        if is_overtaken(connection, view):
            return True
        if not any(map(_find_faults, view.instances)):
            return False
        fresh = {i.name: i for i in load_instances(connection, view.name)}
    # Whoever asks for another try has the failure forgotten, and that alone may be the wish.
    return any(
        i.name not in fresh or not _find_faults(i) <= _find_faults(fresh[i.name])
        for i in view.instances
    )


def _find_faults(instance: Instance) -> frozenset[tuple[str, datetime]]:
    """What is known to have failed, and when."""
    current, hook = instance.current, instance.hook_failure
    found = [(run.name, run.finished_at) for run in current.extensions if run.finished_at]
    found += [] if current.failure is None else [("", current.failure.at)]
    found += [] if hook is None else [(hook.kind.value, hook.at)]
    return frozenset(found)


def find_broken(
    view: ScaleSet, now: datetime, *, names: Collection[str] | None
) -> list[dict[str, Json]]:
    """One detail for each instance that needs a person; None: of all."""
    found: list[dict[str, Json]] = []
    for situation in survey(view):
        if names is not None and situation.instance.name not in names:
            continue
        reason = find_reason_to_give_up(situation, view, now)
        if reason is None:
            continue
        failure = find_failure(situation)
        code = _CODES[failure.rung] if failure is not None else "VMNotHealthy"
        target = str(situation.instance.ordinal)
        message = f"{situation.instance.name}: {reason}"
        found.append({"code": code, "message": message, "target": target})
    return found[:_DETAILS]


def describe_upgrade_end(upgrade: Upgrade) -> Ending | None:
    """How an operation ends whose upgrade has ended; None: it has not."""
    details = find_details(upgrade)
    match upgrade.code:
        case UpgradeCode.COMPLETED:
            return Ending()
        case UpgradeCode.FAULTED:
            code = upgrade.error.code.value if upgrade.error else "RollingUpgradeFaulted"
            message = upgrade.error.message if upgrade.error else upgrade.end_reason
            return _fail(code, f"upgrade {upgrade.id} faulted: {message}", details)
        case UpgradeCode.CANCELLED:
            text = f"upgrade {upgrade.id} was cancelled"
            text += f": {upgrade.end_reason}" if upgrade.end_reason else ""
            error = {"code": "RollingUpgradeCancelled", "message": text}
            return Ending(error=error | ({"details": details} if details else {}), is_canceled=True)
        case _:
            return None


def _describe_refused_drains(
    sight: Sight, operation: Operation, names: Collection[str] | None
) -> Ending | None:
    """How an operation ends that waits only for drains that have failed; None: it does not.

    They are tried again, but perhaps without end. `names`: of these; None: of all that leave.
    """
    busy = {action.instance for action in sight.plan.actions}
    details: list[dict[str, Json]] = []
    for instance in sight.view.instances:
        if instance.wanted is not Wanted.DELETED or (
            names is not None and instance.name not in names
        ):
            continue
        failure = instance.hook_failure
        if failure is None or failure.at < operation.started_at or instance.name in busy:
            return None
        message = f"{instance.name}: {failure.kind}: {failure.message}; it is tried again"
        target = str(instance.ordinal)
        details.append({"code": "DrainFailed", "message": message, "target": target})
    if not details:
        return None
    text = f"{len(details)} instances keep running, since they could not be drained; "
    text += str(details[0]["message"])
    return _fail("VMScaleSetOperationFailed", text, details[:_DETAILS])


def _describe_refusal(error: RefusedError, view: ScaleSet) -> Ending:
    """With the documented code, where there is one, and every instance that is not well."""
    known = (code.value for code in UpgradeErrorCode if error.detail.startswith(f"{code.value}:"))
    code = next(known, None)
    text = ". ".join(part for part in (error.brief, error.detail, error.hint) if part)
    if code is None:
        return _fail("OperationNotAllowed", text)
    details = [
        {
            "code": "VMNotHealthy",
            "message": f"{situation.instance.name}: {verdict.reason}",
            "target": str(situation.instance.ordinal),
        }
        for situation in survey(view)
        if situation.is_counted and (verdict := judge(situation)).is_unhealthy
    ]
    return _fail(code, text, details[:_DETAILS])


def _fail(code: str, message: str, details: list[dict[str, Json]] | None = None) -> Ending:
    error: dict[str, Json] = {"code": code, "message": message}
    return Ending(error=error | ({"details": details} if details else {}))
