"""Decides what happens next. Pure: no input or output, no clock, no random numbers."""

from labctl.planner.admission import Refusal, admit_upgrade
from labctl.planner.automatic import Offer, Rollout, Timing, decide_rollout
from labctl.planner.explain import explain
from labctl.planner.health import Verdict, judge_health
from labctl.planner.plan import plan
from labctl.planner.preview import Preview, PreviewBatch, make_members, preview

__all__ = [
    "Offer",
    "Preview",
    "PreviewBatch",
    "Refusal",
    "Rollout",
    "Timing",
    "Verdict",
    "admit_upgrade",
    "decide_rollout",
    "explain",
    "judge_health",
    "make_members",
    "plan",
    "preview",
]
