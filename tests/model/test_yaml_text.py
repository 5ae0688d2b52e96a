"""YAML as specs use it."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.errors import InvalidError
from labctl.model.yaml_text import MAX_DEPTH, MAX_NODES, invalid, parse_yaml


def _value(text):
    return parse_yaml(text, "x.yaml").value


def _faults(text):
    with pytest.raises(InvalidError) as caught:
        parse_yaml(text, "x.yaml")
    return caught.value.detail.splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:00", "22:00"),
        ("no", "no"),
        ("On", "On"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("0644", "0644"),
        ("0o14", "0o14"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2026-11-23", "2026-11-23"),
        ("1.1.0", "1.1.0"),
        ("1.10", 1.1),
        ("'1.10'", "1.10"),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("-7", -7),
        ("0", 0),
        ("9" * 30, "9" * 30),
        ("~", None),
        ("null", None),
        ("Null", "Null"),
        ("", None),
        ("''", ""),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_only_what_looks_like_a_number_or_true_is_not_text(text, value):
    found = _value(f"key: {text}")
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


def test_keys_are_always_text():
    assert _value("1: a\ntrue: b\n") == {"1": "a", "true": "b"}


def test_every_value_and_key_has_its_position():
    document = parse_yaml("name: web\ndisks:\n  - name: data\n    size: 1GiB\n", "x.yaml")
    assert document.mark_of(()) == (1, 1)
    assert document.mark_of(("name",)) == (1, 7)
    assert document.key_mark_of(("disks",)) == (2, 1)
    assert document.mark_of(("disks", 0)) == (3, 5)
    assert document.mark_of(("disks", 0, "size")) == (4, 11)
    assert document.key_mark_of(("disks", 0, "size")) == (4, 5)
    assert document.mark_of(("disks", 0, "missing", "deeper")) == (3, 5)


def test_the_text_of_a_number_is_kept_and_that_of_quotes_is_not():
    document = parse_yaml("a: 1.10\nb: '1.10'\n", "x.yaml")
    assert document.text_of(("a",)) == "1.10"
    assert document.text_of(("b",)) is None


def test_an_empty_text_is_nothing():
    document = parse_yaml("# only a comment\n", "x.yaml")
    assert document.value is None
    assert document.mark_of(("a",)) == (1, 1)


def test_all_duplicate_keys_are_told():
    assert _faults("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "x.yaml:2:11: duplicate key 'c', first in line 2",
        "x.yaml:3:1: duplicate key 'a', first in line 1",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a:\n\tb: 1", "x.yaml:2:1: a tab stands here; indent with spaces"),
        ("a: b: c", "x.yaml:1:5: ':' is not expected here"),
        ("a: [1\n", "x.yaml:2:1: the text ends inside quotes or brackets"),
        ("a: 'x", "x.yaml:1:6: the text ends inside quotes or brackets"),
        ("- a\nb: 1", "x.yaml:2:1: the indentation does not fit the lines above"),
        ("a: @x", "x.yaml:1:4: text that begins with '@' must be in quotes"),
        ("a: 1\n---\nb: 1", "x.yaml:2:1: a second document begins"),
        ("a: !!python/object:os.system x", "x.yaml:1:4: tag 'tag:yaml.org,2002:python/object"),
        ("a: !!int '3'", "x.yaml:1:4: tag 'tag:yaml.org,2002:int' is not supported"),
        ("a: !mine [1]", "x.yaml:1:4: tag '!mine' is not supported"),
        ("? [a]\n: 1", "x.yaml:1:3: a list or mapping cannot be a key"),
        ("a: *x", "x.yaml:1:4: alias '*x' is not defined above"),
        ("a: &x [*x]", "x.yaml:1:8: alias '*x' refers to a value that contains it"),
        ("a: &x b\n*x : c", "x.yaml:2:1: alias '*x' cannot be a key"),
        ("a: \x07", "x.yaml:1:4: character U+0007 is not allowed"),
        ('a: "\\0"', "x.yaml:1:4: character U+0000 cannot be used"),
        ('a: "\\ud800"', "x.yaml:1:4: character U+D800 cannot be used"),
        ("[" * 100, f"x.yaml:1:33: nested more than {MAX_DEPTH} deep"),
    ],
)
def test_faults_name_the_place_and_what_to_mend(text, fault):
    (line,) = _faults(text)
    assert line.startswith(fault)


def test_aliases_repeat_values_at_the_place_where_they_are_used():
    document = parse_yaml("a: &x {b: [1]}\nc: *x\n", "x.yaml")
    assert document.value == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.mark_of(("c", "b", 0)) == (2, 4)


def test_a_bomb_of_aliases_is_refused_before_it_grows():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 40):
        repeated = ", ".join([f"*a{level - 1}"] * 9)
        bomb += f"a{level}: &a{level} [{repeated}]\n"
    (line,) = _faults(bomb)
    assert f"more than {MAX_NODES} values" in line


def test_errors_are_in_the_order_of_the_text_and_counted():
    error = invalid("x.yaml", [((10, 1), "late"), ((9, 2), "early")], hint="mend it")
    assert error.brief == "2 errors in x.yaml; nothing was changed"
    assert error.detail == "x.yaml:9:2: early\nx.yaml:10:1: late"
    assert error.hint == "mend it"


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@, \n\t?01.~<\\u", max_size=60))
def test_no_text_breaks_the_parser(text):
    try:
        parse_yaml(text, "x.yaml")
    except InvalidError as error:
        for line in error.detail.splitlines():
            assert line.startswith("x.yaml:")


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text("ab 01:.-~\n'#", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(_plain)
def test_what_is_written_with_quotes_reads_back_as_it_was(value):
    text = yaml.safe_dump(value, default_style=None, sort_keys=False)
    again = _value(text)
    assert again == value
