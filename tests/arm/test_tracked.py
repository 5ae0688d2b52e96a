from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.errors import ArmError
from labctl.arm.tracked import merge_tags, read_location, read_tags

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("given_one", "read"), [("East US", "eastus"), ("local", "local"), ("lab-1", "lab-1")]
)
def test_a_location_is_a_region_in_lower_case_without_blanks(given_one: str, read: str):
    assert read_location(given_one) == read


def test_a_location_is_required_and_must_be_a_name():
    with pytest.raises(ArmError, match="required") as missing:
        read_location(None)
    assert missing.value.code == "LocationRequired"
    for wrong in ("", "../etc", "a" * 41, 7, {}, "East\nUS", "é"):
        with pytest.raises(ArmError):
            read_location(wrong)


def test_tags_are_texts_and_numbers_become_texts():
    assert read_tags({"a": "b", "n": 1, "t": True}) == {"a": "b", "n": "1", "t": "true"}
    assert merge_tags({"tags": {"old": "1"}, "location": "x"}, None) == {"location": "x"}


@pytest.mark.parametrize(
    "tags", [[], "x", {"": "x"}, {"a<": "x"}, {"a": {}}, {"a": "x" * 257}, {"A": "1", "a": "2"}]
)
def test_tags_beyond_azures_bounds_are_refused(tags: object):
    with pytest.raises(ArmError) as refused:
        read_tags(tags)
    assert (refused.value.status, refused.value.code) == (400, "InvalidTags")


@given(JSON)
def test_whatever_is_sent_is_read_or_refused(value: object):
    for read in (read_location, read_tags):
        with suppress(ArmError):
            read(value)
