import json
from pathlib import Path

import pytest

from labctl.arm.errors import ArmError
from labctl.arm.template import Template
from tests.arm.test_template_scope import GROUP, SETTING

NETWORK = f"{GROUP}/providers/Microsoft.Network"
TEMPLATES = Path(__file__).parent / "templates"


def nothing(identifier: str) -> dict:
    raise ArmError(404, "ResourceNotFound", f"no {identifier}")


def make_resource(name="vnet", *, type="Microsoft.Network/virtualNetworks", **further) -> dict:  # noqa: A002
    return {"type": type, "apiVersion": "2024-01-01", "name": name, "properties": {}, **further}


def read(*resources, given=None, **further) -> Template:
    return Template({"resources": list(resources), **further}, given or {}, SETTING)


def refuse(*resources, given=None, **further) -> ArmError:
    with pytest.raises(ArmError) as caught:
        read(*resources, given=given, **further)
    return caught.value


def names(template: Template) -> list[str]:
    return [each.name for each in template.resources]


def test_resources_come_after_what_they_need():
    template = read(
        make_resource("lb", dependsOn=["[resourceId('Microsoft.Network/virtualNetworks', 'b')]"]),
        make_resource("a", dependsOn=["lb"]),
        make_resource("b"),
        make_resource("d", dependsOn=["Microsoft.Network/VirtualNetworks/a"]),
        make_resource("c", properties={"x": "[reference('d').y]"}),
    )
    assert names(template) == ["b", "lb", "a", "d", "c"]
    assert template.resources[-1].needs == {f"{NETWORK}/virtualNetworks/d".lower()}


def test_resources_that_wait_for_each_other_are_refused():
    error = refuse(make_resource("a", dependsOn=["b"]), make_resource("b", dependsOn=["a"]))
    assert "Circular dependency detected: 'a', 'b'" in error.message


def test_a_dependency_that_is_not_in_the_template_is_refused():
    error = refuse(make_resource("a", dependsOn=["nobody"]))
    assert error.target == "resources[0].dependsOn"
    assert "'nobody' is not defined in the template" in error.message


def test_children_in_their_parent_come_after_it_and_carry_its_name():
    child = {"type": "subnets", "apiVersion": "2024-01-01", "name": "s"}
    template = read(make_resource("v", resources=[child]))
    assert [(each.type, each.id) for each in template.resources] == [
        ("Microsoft.Network/virtualNetworks", f"{NETWORK}/virtualNetworks/v"),
        ("Microsoft.Network/virtualNetworks/subnets", f"{NETWORK}/virtualNetworks/v/subnets/s"),
    ]
    assert template.resources[1].needs == {template.resources[0].key}
    assert "resources" not in template.make_body(template.resources[0], nothing)


def test_a_copy_loop_makes_many_and_dependants_wait_for_all():
    template = read(
        make_resource("after", dependsOn=["nets"]),
        make_resource(
            "[format('v{0}', copyIndex(1))]",
            copy={"name": "nets", "count": "[parameters('count')]"},
            properties={"place": "[copyIndex()]", "same": "[copyIndex('nets', 5)]"},
        ),
        parameters={"count": {"type": "int"}},
        given={"Count": {"value": 3}},
    )
    assert names(template) == ["v1", "v2", "v3", "after"]
    assert len(template.resources[-1].needs) == 3
    body = template.make_body(template.resources[2], nothing)
    assert body == {"properties": {"place": 2, "same": 7}}


def test_a_serial_loop_goes_batch_by_batch():
    template = read(
        make_resource(
            "[format('v{0}', copyIndex())]",
            copy={"name": "nets", "count": 5, "mode": "serial", "batchSize": 2},
        )
    )
    needs = {each.name: sorted(key[-2:] for key in each.needs) for each in template.resources}
    assert needs == {"v0": [], "v1": [], "v2": ["v0", "v1"], "v3": ["v0", "v1"], "v4": ["v2", "v3"]}


def test_a_condition_leaves_a_resource_and_its_children_out():
    child = {"type": "subnets", "apiVersion": "2024-01-01", "name": "s"}
    template = read(
        make_resource("v", condition="[not(true())]", resources=[child]),
        make_resource("w", dependsOn=["v"]),
    )
    assert {each.name: each.is_wanted for each in template.resources} == {
        "v": False,
        "v/s": False,
        "w": True,
    }


def test_a_reference_reads_what_is_there_by_then():
    asked = []

    def find(identifier):
        asked.append(identifier)
        return {"location": "lab1", "properties": {"port": 80}}

    template = read(
        make_resource("v"),
        make_resource(
            "w",
            properties={
                "port": "[reference('v').port]",
                "place": "[reference(resourceId('Microsoft.Network/virtualNetworks', 'V'), "
                "'2024-01-01', 'Full').location]",
                "other": "[reference(resourceId('x', 'Microsoft.A/bs', 'c')).port]",
            },
        ),
    )
    body = template.make_body(template.resources[1], find)
    assert body == {"properties": {"port": 80, "place": "lab1", "other": 80}}
    assert asked == [
        f"{NETWORK}/virtualNetworks/v",
        f"{NETWORK}/virtualNetworks/v",
        "/subscriptions/sub/resourceGroups/x/providers/Microsoft.A/bs/c",
    ]


def test_a_reference_to_what_is_not_there_names_it():
    template = read(make_resource("w", properties={"x": "[reference('/subscriptions/a/b').c]"}))
    with pytest.raises(ArmError) as caught:
        template.make_body(template.resources[0], nothing)
    assert "'/subscriptions/a/b' cannot be read: no /subscriptions/a/b" in caught.value.message
    assert caught.value.target == "resources[0].properties.x"


def test_parameters_take_their_values_or_defaults():
    template = read(
        parameters={
            "base": {"type": "String", "defaultValue": "[concat(parameters('later'), '!')]"},
            "later": {"type": "string", "defaultValue": "[resourceGroup().location]"},
            "size": {"type": "int", "minValue": 1, "maxValue": 5, "allowedValues": [1, 2, 3]},
            "secret": {"type": "secureString"},
            "maybe": {"type": "object", "nullable": True},
            "zones": {"type": "array", "allowedValues": ["1", "2"]},
        },
        given={
            "SIZE": {"value": 2},
            "secret": {"value": "hunter2"},
            "zones": {"value": ["2"]},
        },
    )
    assert template.parameters == {
        "base": "lab1!",
        "later": "lab1",
        "size": 2,
        "secret": "hunter2",
        "maybe": None,
        "zones": ["2"],
    }
    assert template.open_parameters["secret"] == {"type": "secureString"}
    assert template.open_parameters["size"] == {"type": "int", "value": 2}


@pytest.mark.parametrize(
    ("declared", "given", "code", "reason"),
    [
        ({"type": "string"}, {}, "InvalidTemplate", "parameter 'p' is not provided"),
        ({"type": "text"}, {}, "InvalidTemplate", "the type of a parameter is one of string,"),
        ({"type": "int"}, {"p": {"value": "3"}}, None, "it is a text, but its type is int"),
        ({"type": "int"}, {"p": {"value": True}}, None, "it is a boolean, but its type is int"),
        ({"type": "string"}, {"p": "x"}, None, "'p' is not given as an object with a 'value'"),
        ({"type": "string"}, {"p": {"value": None}}, None, "it is null, but its type is string"),
        ({"type": "string", "allowedValues": ["a"]}, {"p": {"value": "b"}}, None,
         "'b' is not part of the allowed values: 'a'"),
        ({"type": "securestring", "allowedValues": ["a"]}, {"p": {"value": "b"}}, None,
         "the value is not part of the allowed values"),
        ({"type": "string", "minLength": 3}, {"p": {"value": "b"}}, None, "3 is the least"),
        ({"type": "array", "maxLength": 1}, {"p": {"value": [1, 2]}}, None, "1 is the most"),
        ({"type": "int", "minValue": 3}, {"p": {"value": 2}}, None, "2 is less than 3"),
        ({"type": "int", "maxValue": 3}, {"p": {"value": 4}}, None, "4 is more than 3"),
        ({"type": "string"}, {"p": {"value": "x"}, "q": {"value": 1}}, "InvalidTemplate",
         "The template parameters 'q' are not valid"),
        ({"type": "string"}, {"p": {"reference": {}}}, "NotSupportedInLab", "key vault"),
        ({"type": "string", "defaultValue": "[parameters('p')]"}, {}, "InvalidTemplate",
         "values need each other: parameters.p -> parameters.p"),
    ],
)  # fmt: skip
def test_parameters_that_will_not_do_are_named(declared, given, code, reason):
    error = refuse(parameters={"p": declared}, given=given)
    assert error.code == (code or "InvalidDeploymentParameterValue")
    assert reason in error.message
    assert error.status == 400


def test_outputs_are_worked_out_and_secrets_kept():
    template = read(
        outputs={
            "a": {"type": "string", "value": "[toUpper('x')]"},
            "b": {"type": "secureString", "value": "hunter2"},
            "c": {"type": "array", "copy": {"count": 2, "input": "[copyIndex()]"}},
            "d": {"type": "int", "condition": False, "value": "no matter"},
        }
    )
    assert template.make_outputs(nothing) == {
        "a": {"type": "string", "value": "X"},
        "b": {"type": "secureString"},
        "c": {"type": "array", "value": [0, 1]},
    }


def test_variables_in_a_loop():
    template = read(
        make_resource("v", properties={"names": "[variables('names')]"}),
        variables={
            "copy": [{"name": "names", "count": 2, "input": "[format('[{0}]', copyIndex())]"}]
        },
    )
    body = template.make_body(template.resources[0], nothing)
    assert body == {"properties": {"names": ["[0]", "[1]"]}}


def test_symbolic_names_are_names_of_resources():
    template = Template(
        {
            "languageVersion": "2.0",
            "resources": {
                "two": make_resource("w", dependsOn=["one"]),
                "one": make_resource("v"),
            },
        },
        {},
        SETTING,
    )
    assert names(template) == ["v", "w"]


def test_a_template_in_a_template_keeps_its_own_expressions():
    nested = {"resources": [], "outputs": {"x": {"type": "string", "value": "[parameters('p')]"}}}
    properties = {
        "expressionEvaluationOptions": {"scope": "inner"},
        "parameters": {"p": {"value": "[concat('a', 'b')]"}},
        "template": nested,
    }
    kind = "Microsoft.Resources/deployments"
    template = read(make_resource("n", type=kind, properties=properties, resourceGroup="other"))
    resource = template.resources[0]
    assert resource.id == f"/subscriptions/sub/resourceGroups/other/providers/{kind}/n"
    body = template.make_body(resource, nothing)["properties"]
    assert body["template"] == nested
    assert body["parameters"] == {"p": {"value": "ab"}}
    inside = {"resources": [make_resource("v", properties={"x": "[reference('v').x]"})]}
    both = [
        make_resource("n", type=kind, properties={**properties, "template": inside}),
        make_resource("v", dependsOn=["n"]),
    ]
    assert names(read(*both)) == ["n", "v"]  # what is inside refers to what is inside
    del properties["expressionEvaluationOptions"]
    error = refuse(make_resource("n", type=kind, properties=properties))
    assert error.code == "NotSupportedInLab"


@pytest.mark.parametrize(
    ("resource", "target", "reason"),
    [
        (make_resource("a/b"), "resources[0].name", "needs 1 names, not 2"),
        (make_resource(".."), "resources[0].name", "is no name"),
        (make_resource("a?b=c"), "resources[0].name", "is no name"),
        (make_resource(type="vnets"), "resources[0]", "is no type such as"),
        (make_resource(type="Microsoft.A/../b"), "resources[0]", "is no type such as"),
        (make_resource(name=None), "resources[0].name", "a resource needs the text 'name'"),
        (make_resource(copy={"name": "x", "count": 801}), "resources[0].copy.count", "800"),
        (make_resource(copy={"count": 1}), "resources[0].copy", "a copy loop needs a name"),
        (make_resource(apiVersion="new"), "resources[0].apiVersion", "is not like 2024-11-01"),
        (make_resource(condition="yes"), "resources[0].condition", "true or false"),
        (make_resource(dependsOn="v"), "resources[0].dependsOn", "names or ids"),
        ("text", "resources[0]", "a resource is an object"),
        (make_resource(scope="/x"), "resources[0].scope", "another scope"),
        (make_resource(subscriptionId="x"), "resources[0].subscriptionId", "one subscription"),
    ],
)
def test_a_resource_that_cannot_be_meant_is_named_by_its_place(resource, target, reason):
    error = refuse(resource)
    assert error.target == target
    assert reason in error.message


def test_the_same_resource_twice_is_refused():
    assert "defined multiple times" in refuse(make_resource("v"), make_resource("V")).message


def test_what_az_sends_to_create_a_scale_set_is_understood():
    wanted = json.loads((TEMPLATES / "az-vmss-create-rolling.golden.json").read_text())
    body = json.loads((TEMPLATES / "az-vmss-create-rolling.json").read_text())
    found = body["properties"]["template"]
    template = Template(found, body["properties"]["parameters"], SETTING)
    deployed: dict = {}
    for resource in template.resources:
        assert resource.needs <= {key.lower() for key in deployed}
        deployed[resource.id] = template.make_body(resource, nothing)
    outputs = template.make_outputs(lambda identifier: {"properties": {"of": identifier}})
    assert {"resources": deployed, "outputs": outputs} == wanted


def test_a_copy_index_without_a_name_is_that_of_the_resource_even_in_a_loop_of_a_property():
    loop = {
        "name": "disks",
        "count": 2,
        "input": "[format('{0}-{1}', copyIndex(), copyIndex('disks'))]",
    }
    template = read(
        make_resource(
            "[format('v{0}', copyIndex())]",
            copy={"name": "nets", "count": 2},
            properties={"copy": [loop]},
        )
    )
    bodies = [template.make_body(each, nothing)["properties"] for each in template.resources]
    assert bodies == [{"disks": ["0-0", "0-1"]}, {"disks": ["1-0", "1-1"]}]


def test_a_name_that_several_resources_have_is_no_reference():
    template = read(
        make_resource("web"),
        make_resource("web", type="Microsoft.Network/loadBalancers"),
        make_resource("user", properties={"a": "[reference('web').b]"}),
    )
    with pytest.raises(ArmError, match=r"may be any of .*use resourceId"):
        template.make_body(template.resources[-1], lambda _: {"properties": {"b": 1}})
