"""What holds an upgrade back in generated scenarios: windows, a person, a canary, its user."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from hypothesis import strategies as st

from labctl.model.control import ApprovalDefault, ApprovalPolicy, ApprovalScope, CanaryPolicy
from labctl.model.plan import AskApproval, ScaleSet
from labctl.model.upgrade import Upgrade
from labctl.model.window import UTC_CLOCK, MaintenanceWindow
from labctl.planner import find_approval
from tests.planner.control_stories import BERLIN
from tests.planner.happenings import approve, pause, reject, resume
from tests.planner.world import T0, World

CLOCKS = {"Europe/Berlin": BERLIN, "UTC": UTC_CLOCK}
HALF_AN_HOUR = timedelta(minutes=30)
# A run begins on Thursday, 1 January 2026, at 12:00 UTC.
WINDOWS = (
    MaintenanceWindow(start="11:35", duration=HALF_AN_HOUR),  # closes after five minutes
    MaintenanceWindow(start="12:02", duration=HALF_AN_HOUR),
    MaintenanceWindow(start="13:10", duration=HALF_AN_HOUR, time_zone="Europe/Berlin"),
    MaintenanceWindow(days=("Sat",), start="23:45", duration=timedelta(hours=1)),
)


@dataclass(frozen=True, kw_only=True)
class Controls:
    """By default nothing holds an upgrade back."""

    windows: tuple[MaintenanceWindow, ...] = ()
    approval: ApprovalPolicy | None = None
    answers: tuple[tuple[str, int], ...] = ()  # to one question after the other, in seconds
    canary: CanaryPolicy | None = None
    pauses: tuple[tuple[int, int], ...] = ()  # from which second, for how many


FREE = Controls()

controls = st.builds(
    Controls,
    windows=st.lists(st.sampled_from(WINDOWS), max_size=2, unique=True).map(tuple),
    approval=st.one_of(
        st.none(),
        st.builds(
            ApprovalPolicy,
            before=st.sampled_from(ApprovalScope),
            timeout=st.sampled_from((timedelta(minutes=1), timedelta(minutes=10))),
            on_timeout=st.sampled_from(ApprovalDefault),
        ),
    ),
    # An answer that comes too late is none; so is one that nobody gives.
    answers=st.lists(
        st.tuples(
            st.sampled_from(("approve", "approve", "approve", "reject", "silent")),
            st.sampled_from((5, 50, 300, 700)),
        ),
        max_size=6,
    ).map(tuple),
    canary=st.one_of(
        st.none(),
        st.builds(
            CanaryPolicy,
            instances=st.integers(1, 4),
            bake_time=st.sampled_from((timedelta(0), timedelta(seconds=20), timedelta(minutes=10))),
        ),
    ),
    pauses=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=3).map(tuple),
)


def hold_back(scale_set: ScaleSet, controls: Controls) -> ScaleSet:
    """The scale set with all of it in the policy of its only model."""
    policy = scale_set.spec.upgrade_policy.model_copy(
        update={
            "maintenance_windows": controls.windows,
            "approval": controls.approval,
            "canary": controls.canary,
        }
    )
    spec = scale_set.spec.model_copy(update={"upgrade_policy": policy})
    models = {scale_set.model_revision: spec}
    return replace(scale_set, spec=spec, models=models, clocks=CLOCKS)


class Person:
    """Answers questions as the scenario has it, and pauses now and then."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._answers = iter(controls.answers)

    def arrange(self, world: World) -> None:
        """Foresee the pauses; nothing is paused for ever, and no canary bakes for ever."""
        for begin, length in self._controls.pauses:
            world.at(begin, "the user pauses", _if(pause, _is_running))
            world.at(begin + length, "the user resumes", _if(resume, _is_running))
        if self._controls.canary is not None:
            world.at(4000, "all that are ill recover", lambda world: world.sick.clear())

    def hear(self, world: World, question: AskApproval) -> None:
        """Answer, sooner or later or never."""
        answer, delay = next(self._answers, ("approve", 5))
        if answer == "silent":
            return
        change = approve if answer == "approve" else reject
        seconds = int((world.now - T0).total_seconds()) + delay
        world.at(seconds, f"the user answers: {answer}", _if(change, partial(_is_asking, question)))


def _if(change: Callable[[World], None], condition: Callable[[Upgrade], bool]):
    """As the commands do it, which refuse what makes no sense any more."""

    def change_if(world: World) -> None:
        if world.scale_set.upgrade is not None and condition(world.scale_set.upgrade):
            change(world)

    return change_if


def _is_running(upgrade: Upgrade) -> bool:
    return not upgrade.code.is_final and upgrade.cancel_asked_at is None


def _is_asking(question: AskApproval, upgrade: Upgrade) -> bool:
    return (
        _is_running(upgrade)
        and (upgrade.id, upgrade.batches + 1) == (question.upgrade, question.batch)
        and upgrade.approval_asked_at is not None
        and find_approval(upgrade) is not None
    )
