from labctl.controller.clock import now
from labctl.controller.desired import apply_spec, scale
from labctl.controller.record import record
from labctl.model.access import Scope
from labctl.model.plan import Hold, Plan, RemoveInstance
from labctl.model.spec import ScaleSetSpec
from labctl.store.arm_resources import load_resources
from labctl.store.instances import remove_instance
from labctl.store.scale_sets import find_scale_set, remove_scale_set, save_rollout
from tests.api.documents import KEY
from tests.api.happenings import fail_extension
from tests.api.labs import (
    GROUP,
    HEALTH,
    IMAGE,
    SCRIPT,
    add_instances,
    load,
    make_body,
    make_ready,
    monitor,
    poll,
    put_set,
    see,
    step,
)
from tests.controller.identities import make_identity

SET = f"{GROUP}/Web"


def test_a_scale_set_is_made_and_shown_in_the_case_of_its_client(api):
    made = put_set(api)
    assert made.json()["properties"]["provisioningState"] == "Creating"
    shown = api.ask("GET", f"{GROUP}/WEB")
    assert shown.json()["name"] == "Web"
    assert shown.json()["id"].endswith(
        "/resourceGroups/labctl/providers/Microsoft.Compute/virtualMachineScaleSets/Web"
    )
    assert shown.headers["ETag"] == shown.json()["etag"] == made.headers["ETag"]
    assert load(api).spec.capacity == 2


def test_a_put_of_the_size_alone_leaves_everything_else_as_it_was(api):
    put_set(api, extensions=(SCRIPT,))
    before = load(api).spec
    body = {"location": "local", "sku": {"name": "Standard_B1s", "capacity": 3}}
    answer = api.ask("PUT", SET, body=body)
    assert answer.status_code == 200
    assert load(api).spec == before.model_copy(update={"capacity": 3})
    image = answer.json()["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]
    assert image == IMAGE


def test_a_patch_changes_its_part_alone(api):
    put_set(api)
    policy = {"rollingUpgradePolicy": {"maxBatchInstancePercent": 50}}
    answer = api.ask("PATCH", SET, body={"properties": {"upgradePolicy": policy}})
    assert answer.status_code == 200
    shown = answer.json()["properties"]["upgradePolicy"]["rollingUpgradePolicy"]
    assert (shown["maxBatchInstancePercent"], shown["maxUnhealthyInstancePercent"]) == (50, 20)


def test_tags_are_kept_beside_the_model_and_change_no_model(api):
    put_set(api)
    answer = api.ask("PATCH", SET, body={"tags": {"who": "me"}})
    assert answer.json()["tags"] == {"who": "me"}
    assert load(api).model_revision == 1


def test_disks_are_known_by_their_lun_also_as_text(api):
    put_set(api)
    before = load(api)
    disks = [{"lun": "0", "caching": "None"}]
    profile = {"storageProfile": {"dataDisks": disks}}
    answer = api.ask("PATCH", SET, body={"properties": {"virtualMachineProfile": profile}})
    assert answer.status_code == 200, answer.text
    assert load(api) == before


def test_what_was_shown_can_be_sent_back_and_changes_nothing(api):
    put_set(api, extensions=(HEALTH, SCRIPT))
    before = load(api)
    shown = api.ask("GET", SET).json()
    answer = api.ask("PUT", SET, body=shown)
    assert answer.status_code == 200, answer.text
    assert load(api) == before
    assert answer.json()["etag"] == shown["etag"]


def test_conditions_are_asked_before_anything_is_written(api):
    etag = put_set(api).headers["ETag"]
    body = {"sku": {"name": "Standard_B1s", "capacity": 5}}
    for headers in ({"If-Match": '"stale"'}, {"If-None-Match": "*"}):
        answer = api.ask("PATCH", SET, body=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (412, "PreconditionFailed")
    assert api.ask("DELETE", SET, headers={"If-Match": '"stale"'}).status_code == 412
    assert load(api).spec.capacity == 2
    assert api.ask("PATCH", SET, body=body, headers={"If-Match": etag}).status_code == 200
    assert api.ask("GET", SET).headers["ETag"] != etag


def test_the_etag_changes_with_what_is_not_shown(api):
    etags = [put_set(api, extensions=(SCRIPT,)).headers["ETag"]]
    protected = {**SCRIPT["properties"], "protectedSettings": {"key": "secret"}}
    for profile in (
        {"osProfile": {"customData": "IyEvYmluL3NoCg=="}},
        {"extensionProfile": {"extensions": [{**SCRIPT, "properties": protected}]}},
    ):
        change = {"properties": {"virtualMachineProfile": profile}}
        etags.append(api.ask("PATCH", SET, body=change).headers["ETag"])
    assert len({*etags}) == 3
    assert api.ask("GET", SET).headers["ETag"] == etags[-1]


def test_the_etag_does_not_depend_on_what_instances_do(api):
    etag = put_set(api).headers["ETag"]
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    shown = api.ask("GET", SET)
    assert shown.json()["properties"]["provisioningState"] == "Succeeded"
    assert shown.headers["ETag"] == etag


def test_the_operation_of_a_put_ends_when_all_instances_are_healthy(api):
    made = put_set(api)
    see(api)
    assert step(api) == [None]  # no instance yet
    assert poll(api, made)["status"] == "InProgress"
    assert monitor(api, made).status_code == 202
    add_instances(api, 0, 1)
    see(api)
    assert step(api) == [None]  # they start
    make_ready(api, 0, 1)
    assert step(api) == [None]  # nobody has seen that yet
    see(api)
    step(api)
    assert poll(api, made)["status"] == "Succeeded"
    done = monitor(api, made)
    assert (done.status_code, done.json()["name"]) == (200, "Web")


def test_an_open_operation_tells_what_its_scale_set_waits_for(api):
    made = put_set(api)
    see(api, plan=Plan(holds=(Hold(subject="web", reason="no memory for another instance"),)))
    assert poll(api, made)["labctl"] == {"waitsFor": ["web: no memory for another instance"]}
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    assert "labctl" not in poll(api, made)


def test_a_look_from_before_the_present_capacity_tells_nothing(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    with api.desk.database.write() as connection:
        scale(connection, "web", 3, now=now())  # as `labctl scale` does: without an operation
    assert api.ask("GET", SET).json()["properties"]["provisioningState"] == "Updating"


def test_a_look_from_before_the_wish_does_not_end_its_operation(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    body = {"sku": {"name": "Standard_B1s", "capacity": 3}}
    grown = api.ask("PATCH", SET, body=body)
    assert step(api) == [None]
    assert poll(api, grown)["status"] == "InProgress"


def test_a_put_that_changes_nothing_is_over_at_once(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    again = api.ask("PUT", SET, body=make_body(2))
    assert again.json()["properties"]["provisioningState"] == "Succeeded"
    assert poll(api, again)["status"] == "Succeeded"


def test_a_put_again_waits_for_what_the_first_was_not_through_with(api):
    put_set(api)
    again = api.ask("PUT", SET, body=make_body(2))
    assert poll(api, again)["status"] == "InProgress"
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    assert poll(api, again)["status"] == "Succeeded"


def test_a_put_that_begins_a_rollout_again_waits_for_it(api):
    put_set(api, extensions=(HEALTH,), upgradePolicy={"mode": "Rolling"})
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    changed = load(api).spec.model_copy(update={"ssh_keys": (KEY,)})
    with api.desk.database.write() as connection:
        apply_spec(connection, changed, now=now())
        save_rollout(connection, "web", None)  # it was begun, and was cancelled
    again = api.ask("PATCH", SET, body={})
    assert load(api).rollout is not None
    see(api)
    step(api)
    assert poll(api, again)["status"] == "InProgress"


def test_in_mode_manual_nobody_waits_for_old_instances(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    profile = {"osProfile": {"customData": "IyEvYmluL3NoCg=="}}
    changed = api.ask("PATCH", SET, body={"properties": {"virtualMachineProfile": profile}})
    see(api)
    step(api)
    assert poll(api, changed)["status"] == "Succeeded"
    assert [i.current.model_revision for i in load(api).instances] == [1, 1]


def test_a_set_of_the_yaml_is_shown_in_the_default_group_and_changed_there(api):
    spec = ScaleSetSpec.model_validate(
        {"name": "yard", "capacity": 1, "image": {"definition": "tiny"}}
    )
    with api.desk.database.write() as connection:
        apply_spec(connection, spec, now=now())
    assert api.ask("GET", f"{GROUP}/yard").json()["sku"]["capacity"] == 1
    answer = api.ask("PATCH", f"{GROUP}/Yard", body={"sku": {"capacity": 2}})
    assert answer.status_code == 200, answer.text
    assert load(api, "yard").spec.capacity == 2


def test_lists_are_by_group_and_of_the_whole_lab(api):
    api.ask("PUT", "resourceGroups/rg1", body={"location": "local"})
    put_set(api)
    there = GROUP.replace("labctl", "RG1")
    assert api.ask("PUT", f"{there}/Other", body=make_body()).status_code == 201
    names = {
        path: [each["name"] for each in api.ask("GET", path).json()["value"]]
        for path in (GROUP, there, "providers/Microsoft.Compute/virtualMachineScaleSets")
    }
    assert list(names.values()) == [["Web"], ["Other"], ["Other", "Web"]]


def test_names_are_unique_in_the_lab_and_follow_its_rule(api):
    api.ask("PUT", "resourceGroups/rg1", body={"location": "local"})
    put_set(api)
    there = GROUP.replace("labctl", "rg1")
    taken = api.ask("PUT", f"{there}/web", body=make_body())
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "NameAlreadyInUse")
    assert api.ask("GET", f"{there}/web").status_code == 404
    wrong = api.ask("PUT", f"{GROUP}/1web_", body=make_body())
    assert (wrong.status_code, wrong.json()["error"]["target"]) == (400, "name")


def test_an_unknown_group_is_told(api):
    path = GROUP.replace("labctl", "nowhere")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = make_body() if method in {"PUT", "PATCH"} else None
        answer = api.ask(method, f"{path}/web", body=body)
        assert answer.json()["error"]["code"] == "ResourceGroupNotFound"


def test_an_unknown_set_is_404_but_nothing_to_delete(api):
    for method, status in (("GET", 404), ("PATCH", 404), ("DELETE", 204)):
        body = {} if method == "PATCH" else None
        assert api.ask(method, f"{GROUP}/none", body=body).status_code == status


def test_deletion_ends_when_the_set_is_gone_and_takes_what_was_kept_along(api):
    put_set(api)
    api.ask("PATCH", SET, body={"tags": {"a": "b"}})
    add_instances(api, 0)
    gone = api.ask("DELETE", SET)
    assert gone.status_code == 202
    assert api.ask("GET", SET).json()["properties"]["provisioningState"] == "Deleting"
    assert api.ask("PATCH", SET, body={"tags": {}}).status_code == 409
    assert api.ask("POST", f"{SET}/start").status_code == 409
    step(api)
    assert poll(api, gone)["status"] == "InProgress"
    with api.desk.database.write() as connection:
        remove_instance(connection, "web_0")
        remove_scale_set(connection, "web")
    step(api)
    assert poll(api, gone)["status"] == "Succeeded"
    assert monitor(api, gone).status_code == 204
    with api.desk.database.read() as connection:
        assert load_resources(connection, type="Microsoft.Compute/virtualMachineScaleSets") == []


def test_a_set_made_again_inherits_nothing_of_the_earlier_one(api):
    put_set(api)
    api.ask("PATCH", SET, body={"tags": {"a": "b"}})
    with api.desk.database.write() as connection:
        remove_scale_set(connection, "web")  # as `labctl delete` does, which knows no rows of ARM
    assert put_set(api, "WEB").json()["tags"] == {}


def test_a_set_of_the_yaml_is_not_in_the_group_of_an_earlier_one_of_its_name(api):
    api.ask("PUT", "resourceGroups/rg1", body={"location": "local"})
    there = GROUP.replace("labctl", "rg1")
    assert api.ask("PUT", f"{there}/Web", body=make_body()).status_code == 201
    spec = ScaleSetSpec.model_validate(
        {"name": "web", "capacity": 1, "image": {"definition": "tiny"}}
    )
    with api.desk.database.write() as connection:
        remove_scale_set(connection, "web")
        apply_spec(connection, spec, now=now())
    assert api.ask("GET", f"{there}/web").status_code == 404  # its end is not that of this one
    assert api.ask("GET", f"{GROUP}/web").status_code == 200


def test_programs_on_the_host_need_the_scope_admin(api):
    body = make_body()
    body["properties"]["labctl"] = {
        "upgradePolicy": {"hooks": {"drain": {"command": ["/bin/true"]}}}
    }
    refused = api.ask("PUT", SET, body=body, scope=Scope.OPERATE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "AuthorizationFailed")
    with api.desk.database.read() as connection:
        assert find_scale_set(connection, "web") is None
    assert api.ask("PUT", SET, body=body).status_code == 201
    # What is there already is no new reach into the host.
    again = api.ask("PATCH", SET, body={"tags": {"a": "b"}}, scope=Scope.OPERATE)
    assert again.status_code == 200, again.text


def test_reading_is_not_enough_to_write(api):
    for method in ("PUT", "PATCH", "DELETE"):
        assert api.ask(method, SET, body=make_body(), scope=Scope.READ).status_code == 403


def test_repairs_are_suspended_and_resumed(api):
    put_set(
        api,
        extensions=(HEALTH,),
        automaticRepairsPolicy={"enabled": True, "gracePeriod": "PT10M"},
    )
    path = f"{SET}/setOrchestrationServiceState"
    for action, state in (("Suspend", "Suspended"), ("Resume", "Running")):
        body = {"serviceName": "AutomaticRepairs", "action": action}
        answer = api.ask("POST", path, body=body)
        assert answer.status_code == 202
        assert poll(api, answer)["status"] == "Succeeded"
        view = api.ask("GET", f"{SET}/instanceView").json()
        assert view["orchestrationServices"] == [
            {"serviceName": "AutomaticRepairs", "serviceState": state}
        ]
    wrong = api.ask("POST", path, body={"serviceName": "Other", "action": "Resume"})
    assert wrong.json()["error"]["target"] == "serviceName"


def test_extensions_are_entries_of_the_model(api):
    put_set(api, extensions=(HEALTH, SCRIPT))
    path = f"{SET}/extensions"
    body = {"properties": {**SCRIPT["properties"], "protectedSettings": {"key": "secret"}}}
    added = api.ask("PUT", f"{path}/second", body=body)
    assert added.status_code == 201, added.text
    assert "secret" not in added.text
    assert [e.name for e in load(api).spec.extensions] == ["script", "second"]
    changed = api.ask("PATCH", f"{path}/SECOND", body={"properties": {"forceUpdateTag": "2"}})
    assert changed.status_code == 200, changed.text
    second = load(api).spec.extensions[1]
    assert second.force_update_tag == "2"
    assert second.protected_settings == {"key": "secret"}
    shouted = {"Properties": {"ForceUpdateTag": "2", "Settings": {"commandToExecute": "true"}}}
    assert api.ask("PATCH", f"{path}/second", body=shouted).status_code == 200
    assert load(api).spec.extensions[1] == second
    assert api.ask("GET", f"{path}/second").json()["properties"]["forceUpdateTag"] == "2"
    names = [each["name"] for each in api.ask("GET", path).json()["value"]]
    assert names == ["HealthExtension", "script", "second"]
    assert api.ask("DELETE", f"{path}/second").status_code == 202
    assert api.ask("DELETE", f"{path}/second").status_code == 204
    assert api.ask("GET", f"{path}/second").status_code == 404
    assert api.ask("PATCH", f"{path}/second", body={"properties": {}}).status_code == 404


def test_sizes_are_listed_with_the_bounds_of_a_scale_set(api):
    put_set(api)
    first = api.ask("GET", f"{SET}/skus").json()["value"][0]
    assert first["sku"]["name"] == "Standard_B1s"
    assert first["capacity"]["maximum"] == 1000


def test_a_failed_instance_fails_the_operation_and_tells_in_details(api):
    made = put_set(api, extensions=(SCRIPT,))
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    fail_extension(api, "web_0", "script")
    fail_extension(api, "web_1", "script", exit_code=0)
    see(api)
    step(api)
    ended = poll(api, made)
    assert ended["status"] == "Failed"
    (detail,) = ended["error"]["details"]
    assert (detail["code"], detail["target"]) == ("VMExtensionProvisioningError", "0")
    assert "ended with 3" in detail["message"]
    monitored = monitor(api, made)
    assert monitored.status_code == 409
    assert monitored.json()["error"]["details"] == [detail]
    assert api.ask("GET", SET).json()["properties"]["provisioningState"] == "Failed"


def test_scale_in_by_the_planner_ends_the_operation(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    smaller = api.ask("PATCH", SET, body={"sku": {"capacity": 1}})
    with api.desk.database.write() as connection:
        decision = RemoveInstance(instance="web_1", reason="capacity is 1")
        view = load(api)
        record(connection, view, (decision,), now=now(), new_identity=make_identity)
    see(api)
    assert step(api) == [None]
    with api.desk.database.write() as connection:
        remove_instance(connection, "web_1")
    see(api)
    step(api)
    assert poll(api, smaller)["status"] == "Succeeded"
