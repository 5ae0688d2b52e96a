"""Whatever a template says: a template, or an ArmError, and soon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.arm.errors import ArmError
from labctl.arm.template import Template
from labctl.arm.template_functions import FUNCTIONS
from labctl.arm.template_scope import Evaluator
from tests.arm.test_template import make_resource, nothing
from tests.arm.test_template_scope import SETTING

_WORDS = [
    "[", "]", "(", ")", "'", "''", ",", ".", "-", "1", "99", "a", "'x'", "parameters('p')",
    "variables('v')", "copyIndex()", "resourceGroup()", "reference('v')", "true()", "null()",
    "createArray(1, 'a')", "createObject('k', 2)", *(f"{name}(" for name in FUNCTIONS),
]  # fmt: skip
_EXPRESSIONS = st.lists(st.sampled_from(_WORDS), max_size=12).map(
    lambda words: f"[{''.join(words)}]"
)
_ARGUMENTS = st.sampled_from(
    ["1", "-9223372036854775808", "'x'", "''", "'{0}{9}'", "null()", "true()", "createArray()",
     "createArray(1, 'a', null())", "createObject('k', createArray('z'))", "range(0, 999)",
     "'2026-01-01T00:00:00Z'", "'P99999Y'", "json('[1.5, {}]')"]
)  # fmt: skip
_CALLS = st.builds(
    lambda name, given: f"[{name}({', '.join(given)})]",
    st.sampled_from(sorted(FUNCTIONS)),
    st.lists(_ARGUMENTS, max_size=4),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | _EXPRESSIONS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "name", "apiVersion", "copy", "count", "input", "properties", "value",
             "resources", "dependsOn", "condition", "defaultValue", "parameters", "mode",
             "template"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


def deploy(document) -> None:
    try:
        template = Template(document, {}, SETTING)
        for resource in template.resources:
            template.make_body(resource, nothing)
        template.make_outputs(nothing)
    except ArmError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - either ending is right


@given(_EXPRESSIONS | _CALLS)
def test_any_expression_has_a_value_or_a_fault(text):
    evaluator = Evaluator(
        setting=SETTING, parameters={"p": {"a": [1]}}, variables={"v": "[null()]"}
    )
    try:
        evaluator.compute(text, "p")
    except ArmError as error:
        assert error.code == "InvalidTemplate"  # noqa: PT017 - either ending is right


@given(st.fixed_dictionaries({}, optional={
    "resources": st.lists(_VALUES, max_size=3)
    | st.lists(st.builds(lambda more: make_resource(**more), st.fixed_dictionaries({}, optional={
        "properties": _VALUES, "copy": _VALUES, "condition": _VALUES, "dependsOn": _VALUES,
        "name": _VALUES, "resources": _VALUES,
    })), max_size=3),
    "parameters": _VALUES, "variables": _VALUES, "outputs": _VALUES, "functions": _VALUES,
    "$schema": _VALUES,
}))  # fmt: skip
def test_any_template_is_read_or_refused(document):
    deploy(document)


def _doubled(number: int) -> dict:
    variables = {"v0": "[createArray('aaaaaaaaaa', 'aaaaaaaaaa')]"}
    for place in range(1, number):
        each = f"variables('v{place - 1}')"
        variables[f"v{place}"] = f"[createArray({each}, {each}, {each})]"
    return {
        "variables": variables,
        "resources": [],
        "outputs": {"x": {"type": "array", "value": f"[variables('v{number - 1}')]"}},
    }


def _grown(number: int) -> dict:
    variables = {"v0": "aaaaaaaaaa"}
    for place in range(1, number):
        each = f"variables('v{place - 1}')"
        variables[f"v{place}"] = f"[replace({each}, 'a', {each})]"
    return {
        "variables": variables,
        "resources": [],
        "outputs": {"x": {"type": "string", "value": f"[variables('v{number - 1}')]"}},
    }


def _chained(number: int) -> dict:
    variables = {f"v{place}": f"[variables('v{place + 1}')]" for place in range(number)}
    return {
        "variables": {**variables, f"v{number}": "x"},
        "resources": [],
        "outputs": {"x": {"type": "string", "value": "[variables('v0')]"}},
    }


def _nested(number: int) -> dict:
    value: object = "x"
    for _ in range(number):
        value = [value]
    return {"variables": {"v": value}, "resources": []}


def _looped_plainly() -> dict:
    value: object = 1
    for _ in range(3):
        value = {"copy": [{"name": "x", "count": 800, "input": value}]}
    return {"resources": [make_resource("v", properties=value)]}


def _looped() -> dict:
    inner = {"copy": [{"name": "x", "count": 800, "input": "[createArray('a', copyIndex())]"}]}
    outer = {"copy": [{"name": "y", "count": 800, "input": inner}]}
    return {"resources": [make_resource("v", properties=outer)]}


@pytest.mark.parametrize(
    "document",
    [
        _doubled(40),
        _grown(6),
        _chained(250),
        _nested(5000),
        _looped(),
        _looped_plainly(),
        {"resources": [make_resource("[format('v{0}', copyIndex())]",
                                     copy={"name": "x", "count": 800})] * 2},
        {"resources": [], "variables": {f"v{place}": 1 for place in range(257)}},
        {"resources": [], "outputs": {"x": {"type": "string", "value": f"[{'a' * 30000}()]"}}},
        {"resources": [], "functions": [{"namespace": "a", "members": {}}]},
        {"$schema": "https://x/subscriptionDeploymentTemplate.json#", "resources": []},
        {},
    ],
    ids=["doubled", "grown", "chained", "nested", "looped", "looped-plainly", "many", "variables",
         "long", "functions", "subscription", "empty"],
)  # fmt: skip
def test_a_template_that_asks_for_too_much_is_refused(document):
    with pytest.raises(ArmError) as caught:
        template = Template(document, {}, SETTING)
        for resource in template.resources:
            template.make_body(resource, nothing)
        template.make_outputs(nothing)
    assert caught.value.status == 400
