"""When the loop gives up waiting."""

from datetime import timedelta

import pytest

from labctl.controller.reconciler import Reconciler
from labctl.errors import TimedOutError
from labctl.model.plan import Plan
from tests.planner.world import T0, make_set, upgrading

LONG = timedelta(days=1)


def test_a_command_waits_for_a_paused_upgrade_without_end():
    reconciler = Reconciler(None, "web", _moved_at=T0)
    reconciler._raise_when_stuck(upgrading(make_set(2), paused_at=T0), Plan(), T0 + LONG)


def test_a_command_gives_up_where_nothing_moves_for_long():
    reconciler = Reconciler(None, "web", _moved_at=T0)
    with pytest.raises(TimedOutError, match="nothing moves in 'web' any more"):
        reconciler._raise_when_stuck(upgrading(make_set(2)), Plan(), T0 + LONG)
