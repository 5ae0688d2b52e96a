import json
from collections.abc import Iterator

import pytest

from labctl.api import deploy
from labctl.controller.operations import Ending
from labctl.errors import HostError
from labctl.model.access import Scope
from labctl.store.arm_resources import remove_resource
from labctl.store.operations import end_operation, find_last_operation
from labctl.store.tokens import add_token, revoke_token
from tests.api.deploying import BASE, NOW, SLOW, World, deployment, make_world, slow, wish


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.desk.database.close()


def last_operation(world: World, name: str):
    with world.desk.database.read() as connection:
        return find_last_operation(connection, f"{BASE}/{deployment(name)}")


CHAIN = {
    "resources": [
        slow("c", dependsOn=["b"], properties={"from": "[reference('b').from]"}),
        slow("b", dependsOn=["a"], properties={"from": "[reference('a').x]"}),
        slow("a", properties={"x": "[parameters('secret')]"}),
        slow("d"),
    ],
    "parameters": {"secret": {"type": "securestring"}},
    "outputs": {"last": {"type": "string", "value": "[reference('c').from]"}},
}
SECRET = {"secret": {"value": "hunter2"}}


def test_resources_are_put_in_order_and_waited_for(world):
    answer = world.begin("d1", CHAIN, SECRET)
    assert answer.status == 201
    assert "/deployments/d1/operationStatuses/" in answer.headers["Azure-AsyncOperation"]
    assert "Location" not in answer.headers
    assert answer.body["properties"]["provisioningState"] == "Accepted"
    world.is_held = True
    world.take_steps()
    assert world.puts == ["a", "d"]
    assert world.show("d1")["provisioningState"] == "Running"
    world.is_held = False
    world.take_steps()
    assert world.puts == ["a", "d", "b", "c"]
    properties = world.show("d1")
    assert properties["provisioningState"] == "Succeeded"
    assert properties["outputs"] == {"last": {"type": "string", "value": "hunter2"}}
    assert [each["id"].rpartition("/")[2] for each in properties["outputResources"]] == [
        "a", "d", "b", "c",
    ]  # fmt: skip
    states = world.ask("GET", f"{deployment('d1')}/operations").body["value"]
    assert {each["properties"]["provisioningState"] for each in states} == {"Succeeded"}


def test_a_secret_is_remembered_only_while_it_is_needed(world):
    world.begin("d1", CHAIN, SECRET)
    assert "hunter2" in json.dumps(last_operation(world, "d1").goal)
    assert "hunter2" not in json.dumps(world.show("d1"))
    world.take_steps()
    assert last_operation(world, "d1").goal == {}


class KillError(BaseException):
    """kill -9, as far as a test can."""


def die_at(place, do):
    calls = 0

    def call(*given, **named):
        nonlocal calls
        calls += 1
        if calls == place:
            raise KillError
        return do(*given, **named)

    return call


NESTED = {
    "resources": [
        {
            "type": "Microsoft.Resources/deployments",
            "apiVersion": "2024-01-01",
            "name": "inner",
            "properties": {
                "expressionEvaluationOptions": {"scope": "inner"},
                "template": {"resources": [slow("x")]},
            },
        },
        *CHAIN["resources"],
    ],
    "parameters": CHAIN["parameters"],
    "outputs": CHAIN["outputs"],
}


@pytest.mark.parametrize("place", range(1, 5))
@pytest.mark.parametrize("template", [CHAIN, NESTED], ids=["chain", "nested"])
@pytest.mark.parametrize("moment", ["put", "saved", "read"])
def test_a_crash_between_any_two_steps_changes_nothing_in_the_end(
    world, place, moment, template, monkeypatch
):
    world.begin("d1", template, SECRET)
    with monkeypatch.context() as patch:
        if moment == "put":
            world.before_put = die_at(place, lambda name: None)
        elif moment == "saved":  # what the resources answered is lost with it
            patch.setattr(deploy, "save_document", die_at(place, deploy.save_document))
        else:
            patch.setattr(deploy, "find_operation", die_at(place, deploy.find_operation))
        with pytest.raises(KillError):
            world.take_steps()
    world.before_put = lambda name: None
    world.take_steps()
    properties = world.show("d1")
    assert properties["provisioningState"] == "Succeeded"
    assert properties["outputs"]["last"]["value"] == "hunter2"
    assert list(dict.fromkeys(each for each in world.puts if each in "abc")) == ["a", "b", "c"]
    assert last_operation(world, "d1").goal == {}


def test_a_crash_between_what_is_shown_and_the_end_of_the_operation_is_made_good(
    world, monkeypatch
):
    world.begin("d1", {"resources": []})
    with monkeypatch.context() as patch:
        patch.setattr("labctl.controller.operations.end_operation", die_at(1, end_operation))
        with pytest.raises(KillError):
            world.take_steps()
    assert world.show("d1")["provisioningState"] == "Succeeded"
    assert last_operation(world, "d1").is_open
    world.take_steps()
    assert last_operation(world, "d1").status == "Succeeded"


def test_deployments_that_deploy_each_other_do_not_wait_for_ever(world):
    def wrap(name, template):
        return {
            "type": "Microsoft.Resources/deployments",
            "apiVersion": "2024-01-01",
            "name": name,
            "properties": {
                "expressionEvaluationOptions": {"scope": "inner"},
                "template": template,
            },
        }

    again = {"resources": [wrap("d1", {"resources": []})]}
    world.begin("d1", {"resources": [wrap("d2", again)]})
    world.take_steps()
    assert world.show("d1")["provisioningState"] == "Failed"
    assert world.show("d1")["error"]["details"][0]["code"] == "DeploymentActive"


def test_what_fails_is_told_and_nothing_that_needs_it_is_begun(world):
    identifier = f"{BASE}/rg1/providers/{SLOW}/b"
    fault = {"code": "Broken", "message": "it broke", "details": [{"code": "X", "message": "y"}]}
    world.endings[identifier] = Ending(error=fault)
    world.begin("d1", CHAIN, SECRET)
    world.take_steps()
    assert world.puts == ["a", "d", "b"]
    properties = world.show("d1")
    assert properties["provisioningState"] == "Failed"
    assert properties["error"]["code"] == "DeploymentFailed"
    assert properties["error"]["details"] == [{**fault, "target": identifier}]
    operation = last_operation(world, "d1")
    assert operation.status == "Failed"
    assert operation.error == properties["error"]
    assert operation.goal == {}
    world.endings.clear()
    assert world.begin("d1", CHAIN, SECRET).status == 200  # once more, by the same name
    world.take_steps()
    assert world.show("d1")["provisioningState"] == "Succeeded"


def test_a_refused_resource_fails_the_deployment_with_its_reason(world):
    template = {"resources": [slow("a"), slow("b", dependsOn=["a"], properties={"refuse": 1})]}
    world.begin("d1", template)
    world.take_steps()
    [detail] = world.show("d1")["error"]["details"]
    assert detail["code"] == "Refused"
    assert detail["target"].endswith("/slow/b")


def test_outputs_that_cannot_be_worked_out_fail_the_deployment(world):
    outputs = {"x": {"type": "string", "value": "[reference('a').nope]"}}
    world.begin("d1", {"resources": [slow("a")], "outputs": outputs})
    world.take_steps()
    error = world.show("d1")["error"]
    assert error["code"] == "DeploymentOutputEvaluationFailed"
    assert error["details"][0]["target"] == "outputs.x.value"


def test_types_that_nobody_answers_for_are_refused_before_anything_is_changed(world):
    template = {
        "resources": [
            slow("a"),
            {"type": "Microsoft.Sql/servers", "apiVersion": "2024-01-01", "name": "s"},
        ]
    }
    error = world.refuse("PUT", deployment("d1"), wish(template))
    assert (error.status, error.code) == (400, "InvalidResourceType")
    assert "Microsoft.Sql/servers" in error.message
    world.take_steps()
    assert world.puts == []
    assert world.refuse("GET", deployment("d1")).code == "DeploymentNotFound"


def test_what_is_known_to_fail_is_refused_before_anything_is_changed(world):
    template = {"resources": [slow("a"), slow("b", properties={"refuse": 1})]}
    error = world.refuse("PUT", deployment("d1"), wish(template))
    assert (error.status, error.code) == (400, "Refused")
    world.take_steps()
    assert world.puts == []


def test_a_template_has_the_rights_of_its_client_and_no_more(world):
    file = {"type": f"{SLOW}/files", "apiVersion": "2024-01-01", "name": "a/f", "properties": {}}
    template = {"resources": [file]}
    error = world.refuse("PUT", deployment("d1"), wish(template), scope=Scope.OPERATE)
    assert (error.status, error.code) == (403, "AuthorizationFailed")
    assert world.begin("d1", template).status == 201


def test_nothing_more_is_begun_for_a_token_that_was_revoked(world):
    with world.desk.database.write() as connection:
        token = add_token(
            connection, name="n", scope=Scope.ADMIN, secret="s", expires_at=None, now=NOW
        )
    world.begin("d1", CHAIN, SECRET, principal=token.principal)
    world.is_held = True
    world.take_steps(2)
    with world.desk.database.write() as connection:
        revoke_token(connection, "n", now=NOW)
    world.is_held = False
    world.take_steps()
    assert world.puts == ["a", "d"]
    shown = world.show("d1")
    assert shown["provisioningState"] == "Failed"
    assert [each["code"] for each in shown["error"]["details"]] == ["AuthorizationFailed"]
    assert last_operation(world, "d1").goal == {}


def test_an_active_deployment_is_neither_replaced_nor_deleted_but_canceled(world):
    world.is_held = True
    world.begin("d1", CHAIN, SECRET)
    world.take_steps(2)
    assert world.refuse("PUT", deployment("d1"), wish(CHAIN, SECRET)).code == "DeploymentActive"
    assert world.refuse("DELETE", deployment("d1")).code == "DeploymentActive"
    assert world.ask("POST", f"{deployment('d1')}/cancel").status == 204
    assert world.show("d1")["provisioningState"] == "Canceled"
    world.is_held = False
    world.take_steps()
    assert world.puts == ["a", "d"]
    assert last_operation(world, "d1").status == "Canceled"
    assert last_operation(world, "d1").goal == {}
    error = world.refuse("POST", f"{deployment('d1')}/cancel")
    assert error.code == "DeploymentCannotBeCancelled"
    assert world.ask("DELETE", deployment("d1")).status == 204


def test_a_cancel_between_two_resources_is_heeded_and_what_had_begun_is_told(world):
    world.before_put = lambda name: world.ask("POST", f"{deployment('d1')}/cancel")
    world.begin("d1", {"resources": [slow("a"), slow("b")]})
    world.take_steps()
    assert world.puts == ["a"]
    assert world.show("d1")["provisioningState"] == "Canceled"
    told = world.ask("GET", f"{deployment('d1')}/operations").body["value"]
    assert [each["properties"]["targetResource"]["resourceName"] for each in told] == ["a"]


def test_a_deployment_ends_when_its_group_is_gone(world):
    world.begin("d1", CHAIN, SECRET)
    with world.desk.database.write() as connection:
        remove_resource(connection, f"{BASE}/rg1")
    world.take_steps()
    assert last_operation(world, "d1").status == "Canceled"
    assert last_operation(world, "d1").goal == {}
    assert world.puts == []


def test_a_template_in_a_template_is_deployed_by_itself(world):
    inner = {
        "resources": [slow("[parameters('p')]")],
        "parameters": {"p": {"type": "string"}},
        "outputs": {"of": {"type": "string", "value": "[parameters('p')]"}},
    }
    outer = {
        "resources": [
            {
                "type": "Microsoft.Resources/deployments",
                "apiVersion": "2024-01-01",
                "name": "inner",
                "properties": {
                    "mode": "Incremental",
                    "expressionEvaluationOptions": {"scope": "inner"},
                    "parameters": {"p": {"value": "[concat('x', 'y')]"}},
                    "template": inner,
                },
            },
            slow("z", properties={"n": "[reference('inner').outputs.of.value]"}),
        ]
    }
    world.begin("outer", outer)
    world.take_steps()
    assert world.show("outer")["provisioningState"] == "Succeeded"
    assert world.show("inner")["provisioningState"] == "Succeeded"
    assert world.puts == ["xy", "z"]
    assert world.ask("GET", f"rg1/providers/{SLOW}/z").body["properties"] == {"n": "xy"}


def test_an_internal_error_fails_the_deployment_and_no_more(world):
    def fail(name):
        raise ZeroDivisionError

    world.before_put = fail
    world.begin("d1", {"resources": [slow("a")]})
    world.take_steps()
    assert world.show("d1")["error"]["details"][0]["code"] == "InternalServerError"


def test_an_error_that_nobody_has_foreseen_ends_the_deployment_and_its_secrets(world, monkeypatch):
    world.begin("d1", CHAIN, SECRET)

    def fail(*given):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(deploy, "load_wish", fail)
        world.take_steps()
    assert world.show("d1")["error"]["code"] == "InternalServerError"
    assert last_operation(world, "d1").goal == {}


def test_a_deployment_goes_on_when_the_store_was_away(world, monkeypatch):
    world.begin("d1", CHAIN, SECRET)

    def fail(*given):
        raise HostError("the store cannot be used")

    with monkeypatch.context() as patch:
        patch.setattr(deploy, "load_wish", fail)
        world.take_steps(2)
    world.take_steps()
    assert world.show("d1")["provisioningState"] == "Succeeded"
