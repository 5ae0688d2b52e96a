"""Rules of upgrades that are held back; `rules.check_rules` looks at each turn."""

import pytest
from hypothesis import given

from tests.planner.scenarios import Scenario, held_scenarios, make_world
from tests.planner.test_properties import (
    check_as_many_as_wanted_and_no_disk_too_many,
    check_restored_have_the_disk_of_before,
    check_upgrade_has_ended,
)


@pytest.mark.timeout(900)  # 500 examples under coverage on a busy host
@given(held_scenarios)
def test_every_run_that_is_held_back_keeps_the_rules_and_ends_well(scenario: Scenario):
    world = make_world(scenario).run(turns=4000)
    check_upgrade_has_ended(world)
    check_restored_have_the_disk_of_before(world)
    check_as_many_as_wanted_and_no_disk_too_many(world)
