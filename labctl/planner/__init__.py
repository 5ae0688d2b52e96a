"""Decides what happens next. Pure: no input or output, no clock, no random numbers."""

from labctl.planner.admission import Refusal, admit_upgrade
from labctl.planner.health import Verdict, judge_health
from labctl.planner.plan import plan

__all__ = ["Refusal", "Verdict", "admit_upgrade", "judge_health", "plan"]
