"""The two limits that stop an upgrade: strictly more than the percentage."""

from dataclasses import replace

import pytest

from labctl.model.instance import Health, HealthState, Wanted
from labctl.model.upgrade import MemberState
from labctl.model.upgrade_policy import RollingUpgradePolicy
from labctl.planner.limits import find_unhealthy_set, find_unhealthy_upgraded
from labctl.planner.situation import survey
from tests.planner.world import T0, make_instance, make_policy, make_set, make_spec, upgrading

ILL = Health(state=HealthState.UNHEALTHY, since=T0, detail="HTTP 503")
FINE = make_instance(0).health
LOST = Health(state=HealthState.UNKNOWN, since=T0, detail="no answer")


@pytest.mark.parametrize(
    ("total", "ill", "percent", "is_too_many"),
    [
        (10, 2, 20, False),
        (10, 3, 20, True),
        (5, 1, 20, False),
        (5, 2, 20, True),
        (4, 1, 20, True),
        (3, 3, 100, False),
        (0, 0, 20, False),
    ],
)
def test_more_unhealthy_than_allowed_in_the_whole_set(total, ill, percent, is_too_many):
    instances = [make_instance(n, health=ILL if n < ill else FINE) for n in range(total)]
    policy = RollingUpgradePolicy(max_unhealthy_instance_percent=percent)
    found = find_unhealthy_set(survey(make_set(total, instances=instances)), policy)
    assert (found is not None) is is_too_many


def test_unknown_counts_and_stopped_does_not():
    instances = [
        make_instance(0),
        make_instance(1, health=LOST),
        make_instance(2, wanted=Wanted.STOPPED, health=ILL),
        make_instance(3, wanted=Wanted.DELETED, health=ILL),
    ]
    found = find_unhealthy_set(survey(make_set(4, instances=instances)), RollingUpgradePolicy())
    assert found == (
        "unhealthy in the scale set: 1 of 2 (50 %), more than 20 %; first web_1: no answer"
    )


def upgraded(states: list[MemberState], percent: int = 20, **changes):
    spec = make_spec(
        len(states), upgrade_policy=make_policy(max_unhealthy_upgraded_instance_percent=percent)
    )
    instances = [make_instance(n, **changes.get(f"web_{n}", {})) for n in range(len(states))]
    scale_set = upgrading(make_set(len(states), instances=instances, spec=spec))
    members = tuple(
        replace(m, state=state, message=f"message of {m.instance}", batch=len(states) - m.ordinal)
        for m, state in zip(scale_set.upgrade.members, states, strict=True)
    )
    upgrade = replace(scale_set.upgrade, members=members)
    return find_unhealthy_upgraded(upgrade, survey(replace(scale_set, upgrade=upgrade)))


GOOD, BACK, BAD = MemberState.SUCCEEDED, MemberState.ROLLED_BACK, MemberState.FAILED


def test_the_first_failure_of_few_stops_and_of_many_does_not():
    assert upgraded([GOOD] * 4 + [BACK]) is None
    assert upgraded([GOOD] * 3 + [BAD]) == (
        "unhealthy after the upgrade to 1.1.0: 1 of 4 (25 %), more than 20 %; "
        "first web_3: message of web_3"
    )


def test_only_attempted_members_count():
    rest = [MemberState.PENDING, MemberState.SKIPPED]
    assert upgraded([BAD, *rest * 5]) is not None
    assert upgraded(rest) is None


def test_zero_percent_stops_at_the_first_failure_and_not_before():
    assert upgraded([GOOD] * 9, 0) is None
    assert upgraded([*[GOOD] * 99, BACK], 0) is not None


def test_the_first_by_batch_is_named():
    found = upgraded([BAD, BAD, GOOD])
    assert found is not None
    assert found.endswith("2 of 3 (66.7 %), more than 20 %; first web_1: message of web_1")


def test_an_upgraded_instance_that_fell_ill_since_counts():
    found = upgraded([GOOD, GOOD], web_1={"health": ILL})
    assert found is not None
    assert found.endswith(
        "1 of 2 (50 %), more than 20 %; first web_1: healthy at first, then HTTP 503"
    )


def test_an_upgraded_instance_that_its_user_stopped_is_not_ill():
    assert upgraded([GOOD, GOOD], web_1={"health": ILL, "wanted": Wanted.STOPPED}) is None
