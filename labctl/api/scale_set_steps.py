"""Ends operations on scale sets, with what the API keeps beside the store's facts."""

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.api.desk import Desk
from labctl.api.scale_set_ids import forget_set
from labctl.controller.lab import Lab
from labctl.controller.operations import Ending, Step
from labctl.controller.set_operations import SET_DELETE, SetSteps
from labctl.store.operations import Operation
from labctl.store.scale_sets import find_scale_set


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSetSteps:
    """Steps by kind of operation."""

    quick: Mapping[str, Step]
    slow: Mapping[str, Step]


def make_scale_set_steps(desk: Desk, lab: Lab) -> ScaleSetSteps:
    """Those of scale sets and their instances."""
    steps = SetSteps(lab, desk.board)
    quick = {**steps.quick, SET_DELETE: make_delete_step(desk, steps)}
    return ScaleSetSteps(quick=quick, slow=steps.slow)


def make_delete_step(desk: Desk, steps: SetSteps) -> Step:
    """Wait until a scale set is gone, then forget what only Azure's clients knew of it."""

    def step(operation: Operation) -> Ending | None:
        ending = steps.end_delete(operation)
        name = operation.scale_set or ""
        if ending is not None:
            with desk.database.write() as connection:
                # One of the same name that came since has a row of its own.
                if find_scale_set(connection, name) is None:
                    forget_set(connection, name)
        return ending

    return step
