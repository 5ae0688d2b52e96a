"""Decides what happens next. Pure: no input or output, no clock, no random numbers."""

from labctl.planner.admission import Refusal, admit_upgrade
from labctl.planner.explain import explain
from labctl.planner.health import Verdict, judge_health
from labctl.planner.plan import plan
from labctl.planner.preview import Preview, PreviewBatch, make_members, preview

__all__ = [
    "Preview",
    "PreviewBatch",
    "Refusal",
    "Verdict",
    "admit_upgrade",
    "explain",
    "judge_health",
    "make_members",
    "plan",
    "preview",
]
