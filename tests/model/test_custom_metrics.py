import json

import pytest

from labctl.model.custom_metrics import UpgradeWish, read_upgrade_wish


def wish(**rolling):
    return read_upgrade_wish(json.dumps({"rollingUpgrade": rolling}))


def test_both_parts_are_read():
    text = '{"rollingUpgrade":{"PhaseOrderingNumber":0,"SkipUpgrade":true}}'
    assert read_upgrade_wish(text) == UpgradeWish(phase=0, skips=True)


@pytest.mark.parametrize(
    "text",
    [
        '{"RollingUpgrade": {"phaseOrderingNumber": "2", "skipUpgrade": "false"}}',
        '{"ROLLINGUPGRADE": {"PHASEORDERINGNUMBER": 2.0, "SKIPUPGRADE": false}}',
        json.dumps('{"rollingUpgrade": {"PhaseOrderingNumber": 2}}'),
        json.dumps({"rollingUpgrade": '{"PhaseOrderingNumber": 2}'}),
    ],
)
def test_case_and_type_do_not_matter(text):
    assert read_upgrade_wish(text) == UpgradeWish(phase=2)


@pytest.mark.parametrize(
    ("value", "phase"),
    [(-1, -1), ("07", 7), (2**31 - 1, 2**31 - 1), (2**31, None), (10**400, None), (1.5, None)]
    + [(v, None) for v in (True, None, [1], {}, "one", "", "nan", "inf", "1e999")],
)
def test_a_phase_is_a_whole_number_of_sensible_size(value, phase):
    assert wish(PhaseOrderingNumber=value).phase == phase


@pytest.mark.parametrize("value", [True, "True", " true ", 1, "1"], ids=repr)
def test_a_skip_is_true_or_one(value):
    assert wish(SkipUpgrade=value).skips


@pytest.mark.parametrize(
    "value", [False, "False", 0, None, "yes, please", [True], {}, "0"], ids=repr
)
def test_anything_else_is_no_skip(value):
    assert not wish(SkipUpgrade=value).skips


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "7", '"x"', "{}", '{"rollingUpgrade": 3}', "[" * 100_000]
)
def test_nonsense_asks_for_nothing(text):
    assert read_upgrade_wish(text) == UpgradeWish()
