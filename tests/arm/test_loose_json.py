import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.loose_json import tighten


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            '{"properties": {"mode": "Incremental", template:{ "a": 1 }\n}}',
            {"properties": {"mode": "Incremental", "template": {"a": 1}}},
        ),
        (
            '{ // first\n "a": "http://b", /* two\n lines */ b /* x */ : [1, 2,],}',
            {"a": "http://b", "b": [1, 2]},
        ),
        ('{"a": "one\n  two\ttabs"}', {"a": "one\n  two\ttabs"}),
        (r'{"a": "\"quoted\" // no comment"}', {"a": '"quoted" // no comment'}),
        ("{a: true, $b: null}", {"a": True, "$b": None}),
    ],
)
def test_json_as_people_write_it_is_read(text, value):
    assert json.loads(tighten(text)) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_strict_json_means_the_same_afterwards(value):
    assert json.loads(tighten(json.dumps(value))) == value
    assert json.loads(tighten(json.dumps(value, ensure_ascii=False, indent=1))) == value


@pytest.mark.parametrize("part", ['"', "/*", "//", "a", "a ", ", ", "\\", '\\"', "{a", '"a', "/"])
def test_no_text_takes_long(part):
    tighten(part * (400_000 // len(part)))
