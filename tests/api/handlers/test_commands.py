import json

from hypothesis import given
from hypothesis import strategies as st

from labctl.api.handlers.commands import _parse
from labctl.arm.errors import ArmError
from labctl.controller.remote_rules import RULES, find_scope
from labctl.errors import LabError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FILE = st.fixed_dictionaries(
    {"use": st.sampled_from(["spec", "recipe", "x"]) | JSON, "name": JSON},
    optional={"content": JSON, "fault": JSON, "isProgram": JSON},
)
WORD = st.sampled_from(["--", "-o", "json", "--state-dir", "--uri=x", "--server", "web", "--fix"])


@given(
    st.fixed_dictionaries(
        {"argv": st.lists(st.text(), min_size=1) | JSON},
        optional={"files": st.lists(FILE) | JSON, "uploads": JSON, "recipes": JSON},
    )
    | JSON
)
def test_whatever_is_sent_is_taken_or_refused(body):
    try:
        asked = _parse(json.dumps(body).encode())
    except ArmError as error:
        status, words = error.status, ()
    else:
        status, words = 200, asked.words
    assert 200 <= status < 500
    assert all(isinstance(word, str) for word in words)


@given(st.sampled_from(sorted(RULES)), st.lists(WORD, max_size=5))
def test_no_option_of_the_server_gets_through(path, rest):
    words = [*path, *rest]
    try:
        find_scope(words)
    except LabError:
        return
    seen = rest[: rest.index("--")] if path == ("instance", "ssh") and "--" in rest else rest
    assert not {"--state-dir", "--uri=x", "--server"} & set(seen)
