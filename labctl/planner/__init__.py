"""Decides what happens next. Pure: no input or output, no clock, no random numbers."""

from labctl.planner.admission import Refusal, admit_upgrade, find_purpose
from labctl.planner.approval import find_approval
from labctl.planner.automatic import Offer, Rollout, Timing, decide_rollout
from labctl.planner.explain import explain, find_upgrade_steps
from labctl.planner.health import Verdict, judge_health
from labctl.planner.impact import Impact, Need, find_impacts, find_need
from labctl.planner.members import make_members
from labctl.planner.plan import plan
from labctl.planner.preview import Preview, PreviewBatch, preview
from labctl.planner.rollout import find_outdated, has_latest_model
from labctl.planner.scale import find_change

__all__ = [
    "Impact",
    "Need",
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
    "find_approval",
    "find_change",
    "find_impacts",
    "find_need",
    "find_outdated",
    "find_purpose",
    "find_upgrade_steps",
    "has_latest_model",
    "judge_health",
    "make_members",
    "plan",
    "preview",
]
