"""Simulated weeks of several scale sets, compared line by line; see test_stories.py."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from labctl.model.upgrade_policy import AutomaticOsUpgradePolicy, UpgradePolicy
from labctl.model.window import MaintenanceWindow
from tests.planner.weeks import (
    Calendar,
    exclude,
    open_in,
    publish,
    replicate,
    retire,
    set_clock,
    switch,
)
from tests.planner.world import T0, make_set, make_spec

FOLDER = Path(__file__).parent / "weeks"
ON = UpgradePolicy(
    automatic_os_upgrade_policy=AutomaticOsUpgradePolicy(enable_automatic_os_upgrade=True)
)


def make_calendar(**regions: str) -> Calendar:
    """Scale sets by name with their regions, all with automatic upgrades since the beginning."""
    sets = {}
    for name, region in regions.items():
        scale_set = make_set(5, spec=make_spec(5, upgrade_policy=ON, region=region))
        sets[name] = replace(
            scale_set, name=name, spec=scale_set.spec.model_copy(update={"name": name})
        )
    calendar = Calendar(sets=sets, enabled_at=dict.fromkeys(sets, T0))
    publish("1.0.0")(calendar)
    return calendar


def four_weeks_of_versions_and_regions() -> Calendar:
    calendar = make_calendar(alpha="local", beta="local", gamma="far")
    calendar.at(2, "1.1.0 is published for local only", publish("1.1.0", regions=("local",)))
    calendar.at(5, "1.1.0 is replicated to far", replicate("1.1.0", "far"))
    calendar.at(9, "1.2.0, which is bad, is published", publish("1.2.0", bad=True))
    calendar.at(10, "1.2.0 is excluded from latest", exclude("1.2.0"))
    calendar.at(14, "1.2.1 is published", publish("1.2.1"))
    calendar.at(20, "1.2.1 gets an end of life in two days", retire("1.2.1", after=timedelta(2)))
    return calendar.run(28)


def two_weeks_of_switching_off_and_on() -> Calendar:
    calendar = make_calendar(alpha="local")
    calendar.at(1, "automatic upgrades are switched off", switch("alpha", on=False))
    calendar.at(2, "1.1.0 is published", publish("1.1.0"))
    calendar.at(6, "automatic upgrades are switched on", switch("alpha", on=True))
    calendar.at(8, "1.2.0, which is bad, is published", publish("1.2.0", bad=True))
    calendar.at(10, "automatic upgrades are switched off", switch("alpha", on=False))
    calendar.at(10.5, "switched on again: a new beginning", switch("alpha", on=True))
    return calendar.run(14)


def a_publisher_that_is_down_and_a_clock_that_jumps() -> Calendar:
    """Nothing new is offered while the publisher is down; the clock jumps back and forth."""
    calendar = make_calendar(alpha="local", beta="local")
    calendar.at(1, "1.1.0 is published", publish("1.1.0"))
    calendar.at(1.01, "the clock jumps two days back", set_clock(timedelta(days=-2)))
    calendar.at(1.2, "the clock is right again", set_clock(timedelta(0)))
    calendar.at(7, "the publisher is up again: 1.2.0", publish("1.2.0"))
    calendar.at(7.005, "the clock jumps a day ahead", set_clock(timedelta(days=1)))
    calendar.at(9, "the clock is right again", set_clock(timedelta(0)))
    calendar.at(10, "1.3.0 is published", publish("1.3.0"))
    return calendar.run(12)


def windows_of_several_sets_over_the_change_to_summer_time() -> Calendar:
    """alpha opens on Sundays at 02:30 in Berlin, beta on Saturdays at 01:00 UTC, gamma always."""
    calendar = make_calendar(alpha="local", beta="local", gamma="local")
    calendar.now = T0 + timedelta(days=84)  # Thursday, 26 March
    sunday = MaintenanceWindow(
        days=("Sun",), start="02:30", duration=timedelta(hours=1), time_zone="Europe/Berlin"
    )
    saturday = MaintenanceWindow(days=("Sat",), start="01:00", duration=timedelta(hours=1))
    open_in("alpha", sunday)(calendar)
    open_in("beta", saturday)(calendar)
    calendar.at(85, "1.1.0 is published", publish("1.1.0"))
    calendar.at(91, "1.2.0, which is bad, is published", publish("1.2.0", bad=True))
    calendar.at(93.5, "beta opens at any time", open_in("beta"))
    calendar.at(94, "1.2.1 is published", publish("1.2.1"))
    return calendar.run(102)


STORIES = [
    windows_of_several_sets_over_the_change_to_summer_time,
    four_weeks_of_versions_and_regions,
    two_weeks_of_switching_off_and_on,
    a_publisher_that_is_down_and_a_clock_that_jumps,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_weeks_go_as_written_down(story):
    file = FOLDER / f"{story.__name__}.txt"
    told = "\n".join(story().log) + "\n"
    if os.environ.get("LABCTL_WRITE_STORIES"):
        file.write_text(told)
    assert told == file.read_text()


def test_every_file_has_a_story():
    assert {f.stem for f in FOLDER.glob("*.txt")} == {story.__name__ for story in STORIES}
