"""Tables, JSON and YAML."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.cli.output import (
    Column,
    Output,
    format_cell,
    format_span,
    format_table,
    format_yaml,
    print_document,
    print_rows,
    to_plain,
)
from labctl.model.image import VersionNumber
from labctl.model.instance import Power
from labctl.model.machine import ImageReference

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
ROWS = [
    {"name": "web_0", "imageVersion": "1.0.0", "vcpus": 1, "since": NOON, "extra": "hidden"},
    {"name": "web_10", "imageVersion": "1.10.0", "vcpus": 16, "since": None, "extra": "hidden"},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thing:
    image_version: VersionNumber
    power: Power
    started_at: datetime
    took: timedelta
    path: Path
    id: UUID
    tags: frozenset[str]
    by_instance: dict[str, int]


THING = _Thing(
    image_version=VersionNumber(1, 10, 0),
    power=Power.RUNNING,
    started_at=NOON.astimezone(timezone(timedelta(hours=2))),
    took=timedelta(seconds=1.5),
    path=Path("/a b"),
    id=UUID(int=1),
    tags=frozenset({"b", "a"}),
    by_instance={"web_0": 1},
)


def test_tables_are_aligned_and_end_without_blanks():
    columns = ["name", "imageVersion", Column(key="vcpus", heading="CPUS", right=True), "since"]
    assert format_table(ROWS, columns) == (
        "NAME    IMAGE VERSION  CPUS  SINCE\n"
        "web_0   1.0.0             1  2026-11-23T12:00:00Z\n"
        "web_10  1.10.0           16  -"
    )


def test_tables_count_the_columns_of_the_terminal_not_the_characters():
    lines = format_table([{"a": "\u65e5\u672c", "b": "x"}, {"a": "abc", "b": "y"}], ["a", "b"])
    assert lines == "A     B\n\u65e5\u672c  x\nabc   y"


def test_cells_cannot_break_the_table():
    assert format_cell("two\nlines\x1b[31m\ttab ") == "two lines [31m tab"


def test_an_empty_table_says_so(capsys):
    print_rows([], ["name"], Output.TABLE, empty="no scale sets")
    assert capsys.readouterr().out == "no scale sets\n"


def test_empty_rows_are_an_empty_list_for_programs(capsys):
    print_rows([], ["name"], Output.JSON, empty="no scale sets")
    assert json.loads(capsys.readouterr().out) == []


def test_json_has_every_key_in_the_order_given(capsys):
    print_rows(ROWS, ["name"], Output.JSON)
    rows = json.loads(capsys.readouterr().out)
    assert list(rows[0]) == ["name", "imageVersion", "vcpus", "since", "extra"]
    assert rows[0]["since"] == "2026-11-23T12:00:00Z"


def test_values_of_the_model_become_plain_with_camel_case_fields():
    assert to_plain(THING) == {
        "imageVersion": "1.10.0",
        "power": "Running",
        "startedAt": "2026-11-23T12:00:00Z",
        "took": 1.5,
        "path": "/a b",
        "id": "00000000-0000-0000-0000-000000000001",
        "tags": ["a", "b"],
        "byInstance": {"web_0": 1},
    }


def test_specs_become_plain_with_the_keys_of_the_spec():
    reference = ImageReference(definition="tiny", version="1.10.0")
    assert to_plain({"image": reference}) == {"image": {"definition": "tiny", "version": "1.10.0"}}


def test_yaml_keeps_versions_and_scripts_readable(capsys):
    print_document({"version": "1.10", "script": "#!/bin/sh\necho hi\n", "none": None}, Output.YAML)
    assert capsys.readouterr().out == (
        "version: '1.10'\nscript: |\n  #!/bin/sh\n  echo hi\nnone: null\n"
    )


def test_yaml_repeats_values_instead_of_naming_them():
    shared = ["x"]
    assert "&" not in format_yaml({"a": shared, "b": shared})


def test_a_document_as_table_has_one_line_for_each_value(capsys):
    print_document({"name": "web", "disks": [{"name": "data"}], "keys": ["a", "b"]}, Output.TABLE)
    assert capsys.readouterr().out == (
        "name           web\ndisks[0].name  data\nkeys           a, b\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.44, "0.4s"), (9.96, "10s"), (59.6, "1m00s"), (200, "3m20s"), (7500, "2h05m"),
     (273600, "3d4h"), (-3, "-3.0s")],
)  # fmt: skip
def test_spans_are_short(seconds, text):
    assert format_span(timedelta(seconds=seconds)) == text


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(_plain)
def test_yaml_reads_back_as_it_was(value):
    assert yaml.safe_load(format_yaml(value)) == value


@settings(deadline=None)
@given(_plain)
def test_everything_can_be_shown_as_a_table(value):
    print_document(value, Output.TABLE)
