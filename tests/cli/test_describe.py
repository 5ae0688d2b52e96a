"""Tables of instances."""

import pytest

from labctl.cli.describe import choose_columns

ROW = {
    "zone": None,
    "faultDomain": 0,
    "updateDomain": 3,
    "clusterManaged": False,
    "replaces": None,
    "replacedBy": None,
    "protected": None,
}
USUAL = ["name", "imageVersion", "osDisk", "power", "health", "ssh"]


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, []),
        ({"zone": "1"}, ["zone", "updateDomain"]),
        ({"faultDomain": 1}, ["faultDomain"]),
        ({"clusterManaged": True}, ["updateDomain"]),
        ({"replacedBy": "web_3"}, ["replacedBy"]),
        ({"zone": "1", "protected": "from scale-in"}, ["zone", "updateDomain", "protected"]),
    ],
)
def test_what_is_rare_has_a_column_where_it_occurs(changes, columns):
    assert choose_columns([ROW, ROW | changes]) == [*USUAL, *columns, "doing"]
