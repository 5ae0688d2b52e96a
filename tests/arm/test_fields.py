"""The table of fields is what reading goes by, and what the README shows."""

from pathlib import Path

import pytest

from labctl.arm.errors import ArmError
from labctl.arm.faults import Faults
from labctl.arm.fields import FIELDS, ROOT, Treatment, list_rows
from labctl.arm.keeping import keep
from labctl.arm.merge import tidy
from tests.arm.specs import KEY
from tests.arm.test_vmss import _change, _read, _show, make_body

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
REFUSED = [row for row in FIELDS if row.treatment is Treatment.REFUSED]
KEPT = [row for row in FIELDS if row.treatment is Treatment.KEPT]


def _path(row) -> str:
    # Arrays of the body that the tests start from have an entry; the second extension is a script.
    number = "1" if "extensions[]" in row.path else "0"
    return row.path.replace("[]", f".{number}")


def test_the_readme_has_the_table():
    head = "| Property | Treatment | Why |\n| --- | --- | --- |\n"
    table = README.partition(head)[2].partition("\n\n")[0]
    assert table.splitlines() == list(list_rows())


def test_no_property_has_two_rows():
    paths = [row.path.lower() for row in FIELDS]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.path)
def test_what_a_row_refuses_is_refused_with_its_reason(row):
    body = _change(_path(row), {"enabled": "x"})
    with pytest.raises(ArmError) as caught:
        _read(body)
    told = [caught.value, *caught.value.details]
    assert any(row.why in each.message and each.code == "NotSupportedInLab" for each in told)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.path)
def test_what_asks_for_nothing_is_not_refused(row):
    for value in (None, {}, *row.harmless):
        faults = Faults()
        keep(tidy(_change(_path(row), value)), ROOT, faults)
        assert faults.found == []


@pytest.mark.parametrize("row", KEPT, ids=lambda row: row.path)
def test_what_a_row_keeps_comes_back(row):
    value = {"tags": {"a": "b"}, "sku.tier": "Basic"}.get(row.path, "anything")
    path = _path(row)
    body = make_body()
    if "publicKeys" in path:
        _change(path.rpartition(".")[0].rpartition(".")[0], [{"keyData": KEY}], body)
    if "windowsConfiguration" in path:
        profile = body["properties"]["virtualMachineProfile"]
        profile["extensionProfile"]["extensions"].pop()
        profile["osProfile"].pop("customData")
        policy = body["properties"]["upgradePolicy"]["automaticOSUpgradePolicy"]
        policy["enableAutomaticOSUpgrade"] = False
    document = _show(_read(_change(path, value, body)))
    found = document
    for step in path.split("."):
        found = _pick(found, step)
    assert found == value


def _pick(value, step):
    return value[int(step)] if step.isdigit() else value[step]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"properties": {"upgradePolcy": {}}}, "'properties.upgradePolcy' is unknown; did you mean "
         "upgradePolicy?"),
        ({"sku": {"capacty": 3}}, "'sku.capacty' is unknown; did you mean capacity?"),
        ({"locaton": "eastus"}, "'locaton' is unknown; did you mean location?"),
    ],
)  # fmt: skip
def test_a_misspelt_property_is_refused_instead_of_kept(document, told):
    faults = Faults()
    assert keep(document, ROOT, faults) in ({}, {"properties": {}}, {"sku": {}})
    with pytest.raises(ArmError) as caught:
        faults.check()
    assert caught.value.message == told


@pytest.mark.parametrize("name", ["foo", "zone", "diskControllerType", "upgrade", "x" * 1_000_000])
def test_what_resembles_no_property_is_kept(name):
    faults = Faults()
    assert keep({"properties": {name: "value"}}, ROOT, faults) == {"properties": {name: "value"}}
    faults.check()
