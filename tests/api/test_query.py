from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.api.call import Call
from labctl.api.query import cut, read_filter
from labctl.arm.errors import ArmError
from labctl.model.access import Principal, Scope


def make_call(**query: str) -> Call:
    return Call(
        method="GET",
        path="/",
        parameters={},
        query={f"${key}": value for key, value in query.items()},
        headers={},
        content=b"",
        base_url="https://lab",
        principal=Principal(id="", name="", scope=Scope.READ),
        now=datetime.now(UTC),
        request_id="",
    )


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", {}),
        ("name eq 'a'", {"name": "a"}),
        ("NAME EQ 'a'", None),
        ("name eq 'a''b' and tagName eq ''", {"name": "a'b", "tagname": ""}),
        ("name eq 'a' and tagName eq 'and x'", {"name": "a", "tagname": "and x"}),
        ("name eq 'a' and", None),
        ("name eq 'a' and ", None),
        ("name eq 'a' tagName eq 'b'", None),
        ("other eq 'a'", None),
        ("substringof('a', name)", None),
    ],
)
def test_a_filter_is_read_whole_or_refused(text: str, read: dict[str, str] | None):
    call = make_call(filter=text)
    if read is None:
        with pytest.raises(ArmError, match="Invalid \\$filter"):
            read_filter(call, "name", "tagName")
    else:
        assert read_filter(call, "name", "tagName") == read


@given(st.text())
def test_any_filter_and_any_number_is_read_or_refused(text: str):
    with suppress(ArmError):
        read_filter(make_call(filter=text), "name")
    with suppress(ArmError):
        cut(make_call(top=text), [1, 2])


def test_top_cuts_a_list():
    assert list(cut(make_call(top="1"), [1, 2])) == [1]
    assert list(cut(make_call(), [1, 2])) == [1, 2]
