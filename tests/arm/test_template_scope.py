from datetime import UTC, datetime

import pytest

from labctl.arm.errors import ArmError
from labctl.arm.template_scope import Evaluator, Loop, Setting

NOW = datetime(2026, 1, 31, 12, 30, 5, tzinfo=UTC)
SETTING = Setting(
    subscription_id="sub",
    tenant_id="ten",
    group="rg1",
    location="lab1",
    tags={"team": "boot"},
    name="d1",
    url="https://lab:8443",
    now=NOW,
    seed="00000000-0000-0000-0000-000000000001",
)


def make_evaluator(**further) -> Evaluator:
    return Evaluator(
        setting=SETTING,
        parameters={"name": "web", "count": 3, "config": {"Ports": [80, 443], "deep": {"x": None}}},
        variables={
            "prefix": "[concat(parameters('name'), '-')]",
            "nested": {"list": ["[variables('prefix')]", "[[plain]"]},
            "loop": {
                "copy": [{"name": "ports", "count": 2, "input": "[copyIndex('ports', 8080)]"}]
            },
            "one": "[variables('two')]",
            "two": "[variables('one')]",
        },
        **further,
    )


GROUP = "/subscriptions/sub/resourceGroups/rg1"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("plain", "plain"),
        ("[[concat('a')]", "[concat('a')]"),
        ("[not closed", "[not closed"),
        ("[[ -f /etc/x ]] && reboot", "[[ -f /etc/x ]] && reboot"),
        ("['it''s']", "it's"),
        ("[ 42 ]", 42),
        ("[-7]", -7),
        ("[concat('a', 1, true())]", "a1True"),
        ("[format('{0}', false())]", "False"),
        ("[string(createArray(true()))]", "[true]"),
        ("[CONCAT('a','b')]", "ab"),
        ("[concat(createArray(1), createArray(2, 3))]", [1, 2, 3]),
        ("[format('{0}-{1:D3}-{{{2}}}', 'a', 7, parameters('count'))]", "a-007-{3}"),
        ("[format('{0,4}|{0,-4}|{1:X4}|{2:N0}', 'ab', 255, 1234567)]", "  ab|ab  |00FF|1,234,567"),
        ("[parameters('NAME')]", "web"),
        ("[parameters('config').ports[1]]", 443),
        ("[parameters('config')['PORTS'][0]]", 80),
        ("[variables('nested').list]", ["web-", "[plain]"]),
        ("[variables('loop').ports]", [8080, 8081]),
        ("[resourceGroup().location]", "lab1"),
        ("[resourceGroup().tags.team]", "boot"),
        ("[resourceGroup().id]", GROUP),
        ("[subscription().subscriptionId]", "sub"),
        ("[deployment().name]", "d1"),
        ("[environment().resourceManager]", "https://lab:8443"),
        ("[tenant().tenantId]", "ten"),
        (
            "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 's')]",
            f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v/subnets/s",
        ),
        (
            "[resourceId('Microsoft.Network/virtualNetworks/', 'v')]",
            f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v",
        ),
        (
            "[concat('/subscriptions/', subscription().subscriptionId, '/resourceGroups/', "
            "resourceGroup().name, '/providers/Microsoft.Network/virtualNetworks/v')]",
            f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v",
        ),
        (
            "[resourceId('other', 'Microsoft.Network/virtualNetworks', 'v')]",
            "/subscriptions/sub/resourceGroups/other/providers/Microsoft.Network/virtualNetworks/v",
        ),
        (
            "[resourceId('s2', 'other', 'Microsoft.Network/virtualNetworks', 'v')]",
            "/subscriptions/s2/resourceGroups/other/providers/Microsoft.Network/virtualNetworks/v",
        ),
        (
            "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'r')]",
            "/subscriptions/sub/providers/Microsoft.Authorization/roleDefinitions/r",
        ),
        (
            "[extensionResourceId('/a/b', 'Microsoft.Authorization/locks', 'l')]",
            "/a/b/providers/Microsoft.Authorization/locks/l",
        ),
        ("[tenantResourceId('Microsoft.A/bs', 'c')]", "/providers/Microsoft.A/bs/c"),
        ("[providers('Microsoft.Compute', 'disks').apiVersions[0]]", "2024-11-01"),
        ("[base64('héllo')]", "aMOpbGxv"),
        ("[base64ToString('aMOpbGxv')]", "héllo"),
        ("[base64ToJson('eyJhIjoxfQ==').a]", 1),
        ("[string(createObject('a', createArray(1, null())))]", '{"a":[1,null]}'),
        ("[int('-12')]", -12),
        ("[bool('True')]", True),
        ("[json('{\"a\": [true]}').a[0]]", True),
        ("[toLower('AbC')]", "abc"),
        ("[toUpper('AbC')]", "ABC"),
        ("[substring('hello', 1, 3)]", "ell"),
        ("[substring('hello', 5)]", ""),
        ("[replace('a-b-c', '-', '')]", "abc"),
        ("[split('a,b;c', createArray(',', ';'))]", ["a", "b", "c"]),
        ("[join(createArray('a', 'b'), '/')]", "a/b"),
        ("[trim('  a ')]", "a"),
        ("[padLeft('7', 3, '0')]", "007"),
        ("[padLeft(7, 2)]", " 7"),
        ("[startsWith('Hello', 'hE')]", True),
        ("[endsWith('Hello', 'LO')]", True),
        ("[indexOf('Hello', 'L')]", 2),
        ("[lastIndexOf('Hello', 'l')]", 3),
        ("[indexOf(createArray(1, true(), 'x'), true())]", 1),
        ("[length('abc')]", 3),
        ("[length(parameters('config'))]", 2),
        ("[empty(createArray())]", True),
        ("[empty(null())]", True),
        ("[contains('abc', 'B')]", False),
        ("[contains(createArray(1, 2), 2)]", True),
        ("[contains(createArray(1), true())]", False),
        ("[contains(parameters('config'), 'ports')]", True),
        ("[first('abc')]", "a"),
        ("[last(createArray(1, 2))]", 2),
        ("[first(createArray())]", None),
        ("[skip(createArray(1, 2, 3), 1)]", [2, 3]),
        ("[take('abc', 2)]", "ab"),
        ("[union(createArray(1, 2), createArray(2, 3))]", [1, 2, 3]),
        (
            "[union(createObject('a', 1, 'b', createObject('c', 1)),"
            " createObject('b', createObject('d', 2)))]",
            {"a": 1, "b": {"c": 1, "d": 2}},
        ),
        ("[intersection(createArray(1, 2, 3), createArray(3, 2))]", [2, 3]),
        ("[min(3, 1, 2)]", 1),
        ("[max(createArray(3, 1))]", 3),
        ("[range(2, 3)]", [2, 3, 4]),
        ("[array('a')]", ["a"]),
        ("[coalesce(null(), '', 'x')]", ""),
        ("[if(greater(2, 1), 'yes', div(1, 0))]", "yes"),
        ("[and(true(), false(), bool('nonsense'))]", False),
        ("[or(false(), equals('a', 'A'))]", False),
        ("[not(false())]", True),
        ("[equals(createArray(1), createArray(1))]", True),
        ("[equals(1, true())]", False),
        ("[less('a', 'b')]", True),
        ("[lessOrEquals(2, 2)]", True),
        ("[greaterOrEquals(1, 2)]", False),
        ("[add(1, sub(5, mul(2, 3)))]", 0),
        ("[div(-7, 2)]", -3),
        ("[mod(-7, 2)]", -1),
        ("[copyIndex()]", 4),
        ("[copyIndex('outer', 10)]", 12),
        ("[dateTimeAdd('2026-01-31T00:00:00Z', 'P1M')]", "2026-02-28T00:00:00Z"),
        ("[dateTimeAdd('20260131T233000Z', 'PT45M')]", "20260201T001500Z"),
        ("[dateTimeAdd('2026-01-31', '-P1DT1H', 'yyyy-MM-dd HH')]", "2026-01-29 23"),
        ("[uri('https://a/b/', 'c.json')]", "https://a/b/c.json"),
        ("[uriComponent('a b/ü')]", "a%20b%2F%C3%BC"),
        ("[uriComponentToString('a%20b')]", "a b"),
        ("[dataUri('a')]", "data:text/plain;charset=utf8;base64,YQ=="),
        ("[tryGet(parameters('config'), 'no', 'where')]", None),
        ("[items(createObject('b', 1, 'a', 2))[0].key]", "a"),
        ("[flatten(createArray(createArray(1), createArray(2)))]", [1, 2]),
        ("[null()]", None),
        ("[length(uniqueString('a', 'b'))]", 13),
        ("[equals(uniqueString('a'), uniqueString('a'))]", True),
        ("[equals(uniqueString('a'), uniqueString('b'))]", False),
        ("[equals(guid('a'), guid('a'))]", True),
    ],
)
def test_an_expression_has_the_value_that_azure_gives_it(expression, value):
    loops = (Loop(name="outer", index=2), Loop(name="inner", index=4))
    found = make_evaluator().compute(expression, "here", loops)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("[]", "there is the end where a function, a text or a number belongs"),
        ("[concat('a']", "at character 12 there is the end where ')' belongs"),
        ("[concat('a)]", "a text has no closing quote"),
        ("[concat('a') 'b']", "where the end belongs"),
        ("[true]", "there is the end where '(' belongs"),
        ("[99999999999999999999]", "does not fit into 64 bits"),
        ("[add(9223372036854775807, 1)]", "the result does not fit into 64 bits"),
        ("[nonsense('a')]", "this lab knows no function nonsense"),
        ("[contoso.unique('a')]", "this lab knows no function contoso.unique"),
        ("[listKeys('x', '2024-11-01')]", "ask for secrets"),
        ("[parameters('no')]", "the template has no parameter 'no'"),
        ("[variables('no')]", "the template has no variable 'no'"),
        ("[parameters('config').nope]", "there is no property 'nope', but: Ports, deep"),
        ("[parameters('config').ports[2]]", "the index 2 is not within an array of 2"),
        ("[parameters('name').x]", "a text has no property or element"),
        ("[copyIndex()]", "copyIndex belongs into a copy loop"),
        ("[utcNow()]", "belongs into default values of parameters"),
        ("[newGuid()]", "belongs into default values of parameters"),
        ("[reference('x')]", "reference() belongs into properties of resources"),
        ("[concat()]", "concat takes 1+ arguments, not 0"),
        ("[substring('a', 1, 1)]", "is not within a text of 1 characters"),
        ("[int('abc')]", "the text is no integer"),
        ("[div(1, 0)]", "a number is divided by 0"),
        ("[if('yes', 1, 2)]", "a boolean is needed where there is a text"),
        ("[json('{')]", "the text is not JSON"),
        ("[json('1e999')]", "the text is not JSON"),
        ("[base64ToString('%')]", "is not base64"),
        ("[resourceId('Microsoft.Network/virtualNetworks')]", "needs 1 names, not 0"),
        ("[resourceId('x')]", "a type such as Microsoft.Network/loadBalancers"),
        ("[range(0, 10001)]", "range gives 0 to 10000 numbers"),
        ("[padLeft('a', 99999999)]", "give more than 16777216 characters"),
        ("[format('{1}', 'a')]", "the format asks for {1}, which is not given"),
        ("[format('{', 'a')]", "a brace in the format"),
        ("[dateTimeAdd('soon', 'P1D')]", "the text is no moment"),
        ("[dateTimeAdd('2026-01-01', 'P')]", "is no duration"),
        ("[createObject('a')]", "the last key has no value"),
        ("[" + "concat(" * 61 + "'a'" + ")" * 61 + "]", "nested more than 60 levels deep"),
    ],
)
def test_an_expression_without_a_value_says_where_and_why(expression, reason):
    with pytest.raises(ArmError) as caught:
        make_evaluator().compute(expression, "resources[2].properties.x")
    assert caught.value.code == "InvalidTemplate"
    assert caught.value.status == 400
    assert caught.value.target == "resources[2].properties.x"
    assert "at 'resources[2].properties.x' in the expression '[" in caught.value.message
    assert reason in caught.value.message


def test_moments_and_guids_of_default_values_are_those_of_the_deployment():
    evaluator = make_evaluator(has_clock=True)
    assert evaluator.compute("[utcNow()]", "p") == "20260131T123005Z"
    assert evaluator.compute("[utcNow('yyyy-MM-dd HH:mm')]", "p") == "2026-01-31 12:30"
    first, second = (evaluator.compute("[newGuid()]", "p") for _ in range(2))
    assert first != second
    assert make_evaluator(has_clock=True).compute("[newGuid()]", "p") == first


def test_a_fault_tells_no_value_that_may_be_secret():
    evaluator = make_evaluator()
    evaluator.parameters["secret"] = "hunter2"
    for text in ("int", "json", "base64ToString", "bool", "createObject"):
        with pytest.raises(ArmError) as caught:
            evaluator.compute(f"[{text}(parameters('secret'))]", "p")
        assert "hunter2" not in str(caught.value)


def test_variables_that_need_each_other_are_named():
    with pytest.raises(ArmError) as caught:
        make_evaluator().compute("[variables('one')]", "p")
    circle = "values need each other: variables.one -> variables.two -> variables.one"
    assert circle in caught.value.message
    assert caught.value.target == "variables.two"
