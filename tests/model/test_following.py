from datetime import UTC, datetime, timedelta

import pytest

from labctl.model.following import Follow, Wish
from labctl.model.image import VersionNumber
from labctl.model.publisher import Architecture

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WISH = Wish(
    definition="debian-12",
    publisher="debian",
    offer="genericcloud",
    sku="12",
    architecture=Architecture.X86_64,
    publish=True,
    require_signature=False,
    every=timedelta(hours=6),
)
FOLLOW = Follow(wish=WISH)
ONE = VersionNumber(1, 0, 0)


def test_a_new_wish_is_due_at_once_and_then_after_its_interval():
    assert FOLLOW.is_due(NOW)
    after = FOLLOW.succeed(NOW, ONE)
    assert (after.checked_at, after.next_at, after.seen) == (NOW, NOW + WISH.every, ONE)
    assert not after.is_due(NOW)
    assert not after.is_due(NOW + WISH.every - MINUTE)
    assert after.is_due(NOW + WISH.every)


def test_a_clock_that_was_set_back_does_not_put_the_next_look_off():
    assert FOLLOW.succeed(NOW, ONE).is_due(NOW - timedelta(days=365))


def test_failures_are_retried_less_and_less_often_but_never_less_than_usual():
    follow, waits = FOLLOW, []
    for _ in range(40):
        follow = follow.fail(NOW, "down", is_lasting=False)
        waits.append((follow.next_at - NOW) / MINUTE)
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits == sorted(waits)
    assert waits[-1] == 360
    mended = follow.succeed(NOW, None)
    assert (mended.trouble, mended.failures, mended.next_at) == ("", 0, NOW + WISH.every)


def test_what_waiting_does_not_mend_is_tried_at_its_usual_time():
    assert FOLLOW.fail(NOW, "wrong", is_lasting=True).next_at == NOW + WISH.every


@pytest.mark.parametrize("newest", [None, ONE])
def test_what_was_seen_is_not_forgotten(newest):
    assert FOLLOW.succeed(NOW, ONE).succeed(NOW, newest).seen == ONE
