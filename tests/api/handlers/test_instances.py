from datetime import timedelta

import pytest
from sqlalchemy import update

from labctl.controller.clock import now
from labctl.controller.protection import protect
from labctl.model.access import Scope
from labctl.model.instance import Failure, Health, HealthState, Power, Rung, Wanted
from labctl.model.plan import Plan
from labctl.store.instances import change_instance, save_failure, save_health
from labctl.store.schema import operation, scale_set
from tests.api.happenings import fail_extension, refuse_drain
from tests.api.labs import (
    GROUP,
    HEALTH,
    SCRIPT,
    add_instances,
    load,
    make_ready,
    poll,
    put_set,
    see,
    step,
)

SET = f"{GROUP}/Web"
INSTANCES = f"{SET}/virtualMachines"


@pytest.fixture
def web(api):
    """A scale set of two that are ready and healthy."""
    put_set(api, extensions=(HEALTH, SCRIPT))
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    for name in ("web_0", "web_1"):
        fail_extension(api, name, "script", exit_code=0)
    see(api)
    return api


def get(api, path="0", **query):
    return api.ask("GET", f"{INSTANCES}/{path}", query=query).json()


def codes(view):
    return [status["code"] for status in view["statuses"]]


def test_an_instance_tells_its_image_its_model_and_its_disks(web):
    found = get(web)
    properties = found["properties"]
    assert (found["instanceId"], found["name"]) == ("0", "web_0")
    assert properties["latestModelApplied"] is True
    assert properties["provisioningState"] == "Succeeded"
    storage = properties["storageProfile"]
    assert storage["imageReference"]["exactVersion"] == "1.1.0"
    assert [disk["lun"] for disk in storage["dataDisks"]] == [0]
    assert properties["osProfile"]["computerName"] == "web-0"
    assert "instanceView" not in properties


def test_a_view_has_provisioning_first_and_power_second(web):
    view = get(web, "0/instanceView")
    assert codes(view) == ["ProvisioningState/succeeded", "PowerState/running"]
    assert view["vmHealth"]["status"]["code"] == "HealthState/healthy"
    assert [each["name"] for each in view["extensions"]] == ["script", "HealthExtension"]
    script, health = view["extensions"]
    assert codes(script) == ["ProvisioningState/succeeded"]
    assert "ApplicationHealthState/healthy" in health["substatuses"][1]["code"]


def test_views_come_with_the_instances_if_asked_for(web):
    path = f"{INSTANCES}?$expand=instanceView&$select=instanceView"
    listed = web.ask("GET", path).json()["value"]
    assert [codes(each["properties"]["instanceView"])[1] for each in listed] == [
        "PowerState/running"
    ] * 2
    assert web.ask("GET", INSTANCES, query={"$expand": "everything"}).status_code == 400


def test_custom_metrics_are_told(web):
    metrics = '{"rollingUpgrade": {"PhaseOrderingNumber": 0}}'
    with web.desk.database.write() as connection:
        health = Health(state=HealthState.HEALTHY, since=now(), custom_metrics=metrics)
        save_health(connection, "web_0", health)
    health = get(web, "0/instanceView")["extensions"][1]
    assert health["substatuses"][-1]["message"] == metrics


def test_an_instance_that_failed_tells_why(web):
    fail_extension(web, "web_1", "script")
    see(web)
    view = get(web, "1/instanceView")
    assert codes(view)[0] == "ProvisioningState/failed"
    assert "script" in view["statuses"][0]["message"]
    script = view["extensions"][0]
    assert codes(script) == ["ProvisioningState/failed/3"]
    assert script["statuses"][0]["message"] == "ended with exit code 3\nhello\nworld"
    assert view["vmHealth"]["status"]["code"] == "HealthState/unhealthy"
    assert get(web, "1")["properties"]["provisioningState"] == "Failed"


def test_power_is_what_was_seen_last(web):
    for power in (Power.PAUSED, Power.CRASHED, Power.STOPPED):
        see(web, power=power)
        assert codes(get(web, "0/instanceView"))[1] == f"PowerState/{power.lower()}"


def test_without_a_look_the_store_tells_and_power_is_unknown(web):
    for age in (timedelta(minutes=5), timedelta(minutes=-5)):
        see(web, at=now() - age)
        view = get(web, "0/instanceView")
        assert codes(view) == ["ProvisioningState/succeeded", "PowerState/unknown"]
        assert view["vmHealth"]["status"]["code"] == "HealthState/healthy"
    assert get(web)["properties"]["latestModelApplied"] is True


def test_stopped_instances_have_no_health(web):
    with web.desk.database.write() as connection:
        change_instance(connection, "web_0", wanted=Wanted.STOPPED.value)
    see(web)
    view = get(web, "0/instanceView")
    assert codes(view) == ["ProvisioningState/succeeded", "PowerState/stopped"]
    assert "vmHealth" not in view


def test_the_view_of_the_set_counts_states(web):
    with web.desk.database.write() as connection:
        failure = Failure(rung=Rung.SSH, message="no answer", at=now())
        save_failure(connection, "web_1", 1, failure)
    see(web)
    view = web.ask("GET", f"{SET}/instanceView").json()
    counts = {each["code"]: each["count"] for each in view["virtualMachine"]["statusesSummary"]}
    assert counts["ProvisioningState/succeeded"] == counts["ProvisioningState/failed"] == 1
    assert counts["PowerState/running"] == 2
    assert view["extensions"][0]["statusesSummary"][0]["count"] == 2


def test_lists_have_pages_that_link_to_the_next(api):
    put_set(api, capacity=125)
    add_instances(api, *range(125))
    first = api.ask("GET", INSTANCES).json()
    assert len(first["value"]) == 120
    path = first["nextLink"].removeprefix(api.url)
    rest = api.ask("GET", path, version=None).json()
    assert [each["instanceId"] for each in rest["value"]] == [str(n) for n in range(120, 125)]
    assert "nextLink" not in rest


def test_lists_can_be_filtered_by_status(web):
    with web.desk.database.write() as connection:
        change_instance(connection, "web_0", wanted=Wanted.STOPPED.value)
    see(web)
    for text, names in (
        ("startswith(instanceView/statuses/code, 'PowerState/stopped')", ["web_0"]),
        ("properties/latestModelApplied eq true", ["web_0", "web_1"]),
    ):
        found = web.ask("GET", INSTANCES, query={"$filter": text}).json()["value"]
        assert [each["name"] for each in found] == names
    wrong = web.ask("GET", INSTANCES, query={"$filter": "name ne 'x'"})
    assert wrong.json()["error"]["code"] == "InvalidFilterInQueryString"


def test_unknown_instances_are_not_found(web):
    for instance in ("2", "x", "other_0", "-1", "9" * 20, "\u0663"):
        answer = web.ask("GET", f"{INSTANCES}/{instance}")
        assert answer.json()["error"]["code"] == "ResourceNotFound", instance


def test_what_labctl_calls_an_instance_is_understood(web):
    assert get(web, "WEB_1")["instanceId"] == "1"


def test_protection_is_changed_by_a_put_of_what_was_shown(web):
    shown = get(web, "0", **{"$expand": "instanceView"})
    shown["properties"]["protectionPolicy"] = {
        "protectFromScaleIn": True,
        "protectFromScaleSetActions": True,
    }
    answer = web.ask("PUT", f"{INSTANCES}/0", body=shown)
    assert answer.status_code == 200, answer.text
    assert answer.json()["properties"]["protectionPolicy"]["protectFromScaleSetActions"] is True
    assert poll(web, answer)["status"] == "Succeeded"
    assert load(web).instances[0].protect_from_scale_set_actions


def test_protection_regards_conditions(web):
    etag = get(web)["etag"]
    body = {"properties": {"protectionPolicy": {"protectFromScaleIn": True}}}
    for headers in ({"If-Match": '"stale"'}, {"If-None-Match": "*"}):
        refused = web.ask("PUT", f"{INSTANCES}/0", body=body, headers=headers)
        assert refused.status_code == 412
    see(web, power=Power.STOPPED)
    assert get(web)["etag"] == etag  # a status is no change
    answer = web.ask("PUT", f"{INSTANCES}/0", body=body, headers={"If-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["etag"] == get(web)["etag"] != etag


def test_protection_from_actions_alone_is_refused(web):
    body = {"properties": {"protectionPolicy": {"protectFromScaleSetActions": True}}}
    answer = web.ask("PUT", f"{INSTANCES}/0", body=body)
    assert answer.status_code == 409
    assert not load(web).instances[0].is_protected


def test_a_single_instance_has_no_model_of_its_own(web):
    protection = "properties.protectionPolicy"
    for body, target in (
        (
            {"properties": {"storageProfile": {"osDisk": {"name": "x"}}}},
            "properties.storageProfile",
        ),
        ({"properties": {"userData": "eA=="}}, "properties.userData"),
        ({"tags": {"a": "b"}}, "tags"),
        ({"properties": []}, "properties"),
        ({"properties": {"protectionPolicy": 3}}, protection),
        (
            {"properties": {"protectionPolicy": {"protectFromScaleIn": "yes"}}},
            f"{protection}.protectFromScaleIn",
        ),
    ):
        answer = web.ask("PUT", f"{INSTANCES}/0", body=body)
        assert (answer.status_code, answer.json()["error"]["target"]) == (400, target)
    assert not load(web).instances[0].is_protected


def test_extensions_of_an_instance_are_shown_and_not_changed(web):
    listed = get(web, "0/extensions")["value"]
    assert [each["name"] for each in listed] == ["script", "HealthExtension"]
    one = get(web, "0/extensions/SCRIPT", **{"$expand": "instanceView"})
    assert one["properties"]["provisioningState"] == "Succeeded"
    assert one["properties"]["instanceView"]["statuses"]
    assert web.ask("GET", f"{INSTANCES}/0/extensions/none").status_code == 404
    refused = web.ask("PUT", f"{INSTANCES}/0/extensions/script", body={})
    assert refused.json()["error"]["code"] == "NotSupportedInLab"


# --- actions --------------------------------------------------------------------------------------


def wishes(api):
    return {
        i.name: (i.wanted, i.restart_asked_at is not None, i.generation)
        for i in load(api).instances
    }


@pytest.mark.parametrize(
    ("action", "wish"),
    [
        ("powerOff", (Wanted.STOPPED, False, 1)),
        ("deallocate", (Wanted.STOPPED, False, 1)),
        ("restart", (Wanted.RUNNING, True, 1)),
        ("reimage", (Wanted.RUNNING, False, 2)),
        ("reimageall", (Wanted.RUNNING, False, 2)),
        ("start", (Wanted.RUNNING, False, 1)),
    ],
)
def test_an_action_is_for_the_named_ones_or_for_all(web, action, wish):
    same = (Wanted.RUNNING, False, 1)
    answer = web.ask("POST", f"{SET}/{action}", body={"instanceIds": ["1"]})
    assert answer.status_code == 202
    assert wishes(web) == {"web_0": same, "web_1": wish}
    assert web.ask("POST", f"{INSTANCES}/0/{action}").status_code == 202
    assert wishes(web) == {"web_0": wish, "web_1": wish}
    assert web.ask("POST", f"{SET}/{action}").status_code == 202


def test_an_action_ends_when_it_was_seen_done(web):
    off = web.ask("POST", f"{SET}/powerOff", body={"instanceIds": ["1"]})
    step(web)
    assert poll(web, off)["status"] == "InProgress"
    assert get(web, "1")["properties"]["provisioningState"] == "Updating"
    see(web, power=Power.RUNNING)
    step(web)
    assert poll(web, off)["status"] == "InProgress"
    see(web)
    step(web)
    assert poll(web, off)["status"] == "Succeeded"


def test_a_look_from_before_another_try_does_not_fail_it(web):
    step(web)
    fail_extension(web, "web_1", "script")
    see(web)
    before = web.desk.board.find("web")
    started = web.ask("POST", f"{INSTANCES}/1/start")
    web.desk.board.put(before.view, before.plan, at=now())  # by a keeper that has just looked
    step(web)
    assert poll(web, started)["status"] == "InProgress"


@pytest.mark.parametrize("shift", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_is_set_ends_no_operation_and_keeps_none(web, shift):
    step(web)
    off = web.ask("POST", f"{SET}/powerOff", body={"instanceIds": ["1"]})
    gone = web.ask("DELETE", SET)
    with web.desk.database.write() as connection:
        connection.execute(update(operation).values(started_at=now() + shift))
        remove_set_wish(connection)
    step(web)
    assert [poll(web, each)["status"] for each in (off, gone)] == ["InProgress"] * 2
    see(web)
    step(web)
    assert [poll(web, each)["status"] for each in (off, gone)] == ["Succeeded", "InProgress"]


def remove_set_wish(connection):
    """As if the wish to delete the set were not yet seen by anybody."""
    connection.execute(update(scale_set).values(is_deleting=False))
    change_instance(connection, "web_0", wanted=Wanted.RUNNING.value)
    change_instance(connection, "web_1", wanted=Wanted.STOPPED.value)


def test_who_was_deallocated_is_shown_so_until_something_else_is_asked(web):
    def power():
        see(web)
        listed = web.ask("GET", f"{INSTANCES}?$expand=instanceView").json()["value"]
        return [codes(each["properties"]["instanceView"])[1] for each in listed]

    web.ask("POST", f"{SET}/deallocate")
    assert power() == ["PowerState/deallocated"] * 2
    web.ask("POST", f"{INSTANCES}/0/powerOff")
    assert power() == ["PowerState/stopped", "PowerState/deallocated"]
    web.ask("POST", f"{SET}/start", body={"instanceIds": ["1"]})
    assert power() == ["PowerState/stopped", "PowerState/running"]


def test_an_unknown_instance_keeps_an_action_from_everybody(web):
    answer = web.ask("POST", f"{SET}/powerOff", body={"instanceIds": ["1", "7"]})
    assert answer.status_code == 400
    assert "instanceId '7' is not an active" in answer.json()["error"]["message"]
    assert {wanted for wanted, _, _ in wishes(web).values()} == {Wanted.RUNNING}


def test_protected_instances_are_left_out_of_actions_on_all(web):
    with web.desk.database.write() as connection:
        protect(connection, ["web_0"], scale_in=True, actions=True, now=now())
    web.ask("POST", f"{SET}/powerOff")
    assert [wanted for wanted, _, _ in wishes(web).values()] == [Wanted.RUNNING, Wanted.STOPPED]


def test_the_newest_model_is_for_those_who_have_it_not(web):
    profile = {"osProfile": {"customData": "IyEvYmluL3NoCg=="}}
    web.ask("PATCH", SET, body={"properties": {"virtualMachineProfile": profile}})
    answer = web.ask("POST", f"{SET}/manualupgrade", body={"instanceIds": ["1"]})
    assert answer.status_code == 202
    assert [i.current.model_revision for i in load(web).instances] == [1, 2]
    assert get(web, "0")["properties"]["latestModelApplied"] is False
    web.ask("POST", f"{SET}/manualupgrade", body={"instanceIds": ["*"]})
    assert [i.current.model_revision for i in load(web).instances] == [2, 2]
    assert web.ask("POST", f"{SET}/manualupgrade", body={}).status_code == 400


def test_deleted_instances_take_the_capacity_along(web):
    from labctl.store.instances import remove_instance

    answer = web.ask("POST", f"{SET}/delete", body={"instanceIds": ["0"]})
    assert answer.status_code == 202
    view = load(web)
    assert view.spec.capacity == 1
    assert [i.wanted for i in view.instances] == [Wanted.DELETED, Wanted.RUNNING]
    step(web)
    assert poll(web, answer)["status"] == "InProgress"
    assert get(web, "0")["properties"]["provisioningState"] == "Deleting"
    with web.desk.database.write() as connection:
        remove_instance(connection, "web_0")
    step(web)
    assert poll(web, answer)["status"] == "Succeeded"
    assert web.ask("DELETE", f"{INSTANCES}/1").status_code == 202
    assert load(web).spec.capacity == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{SET}/delete", {"instanceIds": ["1"]}),
        ("PATCH", SET, {"sku": {"capacity": 1}}),
    ],
)
def test_who_cannot_be_drained_is_not_waited_for_without_end(web, method, path, body):
    step(web)  # the operation that made it
    refuse_drain(web, "web_1")  # long ago, for something else
    answer = web.ask(method, path, body=body)
    if method == "PATCH":
        with web.desk.database.write() as connection:
            change_instance(connection, "web_1", wanted=Wanted.DELETED.value)
    see(web, power=Power.RUNNING, plan=Plan())
    step(web)
    assert poll(web, answer)["status"] == "InProgress"
    refuse_drain(web, "web_1")
    step(web)
    assert poll(web, answer)["status"] == "InProgress"  # nobody has seen that yet
    see(web, power=Power.RUNNING, plan=Plan())
    step(web)
    ended = poll(web, answer)
    assert ended["status"] == "Failed"
    (detail,) = ended["error"]["details"]
    assert (detail["code"], detail["target"]) == ("DrainFailed", "1")
    assert "it has sessions" in detail["message"]


def test_a_protected_instance_is_not_deleted(web):
    with web.desk.database.write() as connection:
        protect(connection, ["web_0"], scale_in=True, now=now())
    answer = web.ask("POST", f"{SET}/delete", body={"instanceIds": ["1", "0"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "OperationNotAllowed")
    assert load(web).spec.capacity == 2


def test_what_a_lab_has_not_is_refused_by_name(web):
    for path, body in (
        ("redeploy", None),
        ("performMaintenance", None),
        ("convertToSinglePlacementGroup", None),
        ("virtualMachines/0/redeploy", None),
        ("virtualMachines/0/simulateEviction", None),
        ("extensionRollingUpgrade", None),
        ("reimage", {"instanceIds": ["0"], "exactVersion": "1.0.0"}),
        ("deallocate?hibernate=true", None),
    ):
        answer = web.ask("POST", f"{SET}/{path}", body=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "NotSupportedInLab")


def test_actions_need_the_scope_operate(web):
    assert web.ask("POST", f"{SET}/powerOff", scope=Scope.READ).status_code == 403
    assert web.ask("POST", f"{SET}/powerOff", scope=Scope.OPERATE).status_code == 202
