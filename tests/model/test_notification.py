"""What receivers choose by."""

import pytest
from pydantic import ValidationError

from labctl.model.event import EventKind
from labctl.model.notification import Notification, Topic, TopicFilter


@pytest.mark.parametrize(
    ("wish", "topic", "is_wanted"),
    [
        ("upgrade", Topic.UPGRADE_FAULTED, True),
        ("upgrade.ended", Topic.UPGRADE_FAULTED, False),
        ("all", Topic.HEALTH, True),
        ("hook", Topic.HEALTH, False),
    ],
)
def test_groups_of_topics(wish, topic, is_wanted):
    assert TopicFilter(wish).matches(topic) is is_wanted


def test_every_topic_can_be_asked_for_alone():
    assert {topic.value for topic in Topic} < {each.value for each in TopicFilter}
    assert {kind.value for kind in EventKind} <= {topic.value for topic in Topic}


def test_a_receiver_wants_what_one_of_its_filters_matches():
    receiver = Notification(name="a", url="https://a/")
    assert receiver.wants(Topic.UPGRADE_FAULTED)
    assert not receiver.wants(Topic.HEALTH)
    with pytest.raises(ValidationError, match="at least one"):
        Notification(name="a", url="https://a/", events=())
