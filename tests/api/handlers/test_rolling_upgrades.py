import pytest

from labctl.controller.clock import now
from labctl.controller.set_operations import UPGRADE_AWAIT
from labctl.controller.upgrades import cancel_upgrade
from labctl.model.control import ApprovalPolicy, UpgradeControl
from labctl.model.instance import Power
from labctl.model.upgrade import MemberState, StartedBy, UpgradeCode, UpgradeErrorCode
from labctl.store.operations import load_open_operations
from labctl.store.scale_sets import move_image
from labctl.store.upgrades import change_member, change_upgrade, load_upgrade, load_upgrades
from tests.api.labs import (
    GROUP,
    HEALTH,
    add_instances,
    load,
    make_ready,
    make_runner,
    monitor,
    poll,
    put_set,
    see,
    step,
)

SET = f"{GROUP}/Web"


@pytest.fixture
def web(api):
    """Two healthy instances on 1.0.0, of an image whose latest version is 1.1.0."""
    put_set(api, extensions=(HEALTH,))
    with api.desk.database.write() as connection:
        move_image(connection, "web", version="1.0.0", digest="0" * 64, revision=1)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    return api


def start(api):
    answer = api.ask("POST", f"{SET}/osRollingUpgrade")
    assert answer.status_code == 202, answer.text
    sight = api.desk.board.find("web")
    assert step(api, seen=sight.view) == [None]
    return answer


def end(api, code, *, error=None, **members):
    with api.desk.database.write() as connection:
        for name, state in members.items():
            change_member(connection, 1, name, state=state.value, message="HTTP 503")
        change_upgrade(
            connection,
            1,
            code=code.value,
            ended_at=now(),
            end_reason="because",
            error_code=None if error is None else error.value,
            error_message=None if error is None else "too many",
        )


def test_an_upgrade_is_begun_once_and_ends_with_its_code(web):
    answer = start(web)
    upgrade = load(web).upgrade
    assert (upgrade.target_version, upgrade.started_by) == ("1.1.0", StartedBy.USER)
    assert web.ask("GET", SET).json()["properties"]["provisioningState"] == "Updating"
    step(web)
    assert poll(web, answer)["status"] == "InProgress"
    end(web, UpgradeCode.COMPLETED)
    step(web)
    assert poll(web, answer)["status"] == "Succeeded"
    assert monitor(web, answer).status_code == 204


def test_an_upgrade_that_faulted_tells_its_code_and_each_instance(web):
    answer = start(web)
    end(
        web,
        UpgradeCode.FAULTED,
        error=UpgradeErrorCode.UNHEALTHY_UPGRADED,
        web_0=MemberState.ROLLED_BACK,
    )
    step(web)
    error = poll(web, answer)["error"]
    assert error["code"] == "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"
    assert error["details"] == [
        {"code": "InstanceRolledBack", "message": "web_0: HTTP 503", "target": "0"}
    ]
    latest = web.ask("GET", f"{SET}/rollingUpgrades/latest").json()["properties"]
    assert latest["runningStatus"]["code"] == "Faulted"
    assert latest["error"]["details"] == error["details"]
    history = web.ask("GET", f"{SET}/osUpgradeHistory").json()["value"][0]["properties"]
    assert history["error"]["code"] == error["code"]
    assert history["runningStatus"]["endTime"] == history["runningStatus"]["completedTime"]
    assert history["rollbackInfo"]["successfullyRolledbackInstanceCount"] == 1
    assert history["targetImageReference"]["version"] == "1.1.0"
    assert history["startedBy"] == "User"


def test_a_cancelled_upgrade_ends_both_operations(web):
    answer = start(web)
    cancel = web.ask("POST", f"{SET}/rollingUpgrades/cancel")
    assert cancel.status_code == 202
    latest = web.ask("GET", f"{SET}/rollingUpgrades/latest").json()["properties"]
    assert latest["runningStatus"]["lastAction"] == "Cancel"
    step(web)
    assert poll(web, cancel)["status"] == "InProgress"
    end(web, UpgradeCode.CANCELLED)
    step(web)
    assert poll(web, cancel)["status"] == "Succeeded"
    assert poll(web, answer)["status"] == "Canceled"
    assert web.ask("POST", f"{SET}/rollingUpgrades/cancel").status_code == 409


def test_who_starts_again_waits_for_the_one_that_runs(web):
    start(web)
    again = web.ask("POST", f"{SET}/osRollingUpgrade")
    assert again.status_code == 202
    end(web, UpgradeCode.COMPLETED)
    step(web)
    assert poll(web, again)["status"] == "Succeeded"


def test_one_that_is_being_cancelled_is_not_joined(web):
    start(web)
    with web.desk.database.write() as connection:
        cancel_upgrade(connection, "web", now=now())
    answer = web.ask("POST", f"{SET}/osRollingUpgrade")
    assert answer.json()["error"]["code"] == "RollingUpgradeInProgress"


def test_where_everything_is_new_there_is_nothing_to_do(api):
    put_set(api)
    add_instances(api, 0, 1)
    make_ready(api, 0, 1)
    see(api)
    step(api)
    answer = api.ask("POST", f"{SET}/osRollingUpgrade")
    step(api, seen=api.desk.board.find("web").view)
    assert poll(api, answer)["status"] == "Succeeded"
    assert api.ask("GET", f"{SET}/rollingUpgrades/latest").status_code == 404
    assert api.ask("GET", f"{SET}/osUpgradeHistory").json() == {"value": []}


def test_what_the_health_gate_refuses_fails_with_its_reason(web):
    answer = web.ask("POST", f"{SET}/osRollingUpgrade")
    see(web, power=Power.STOPPED)
    step(web, seen=web.desk.board.find("web").view)
    ended = poll(web, answer)
    assert ended["status"] == "Failed"
    error = ended["error"]
    assert error["code"] == "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"
    assert [each["target"] for each in error["details"]] == ["0", "1"]


def test_a_batch_that_waits_is_approved_and_single_instances_are_not(web):
    start(web)
    control = UpgradeControl(approval=ApprovalPolicy())
    with web.desk.database.write() as connection:
        change_upgrade(connection, 1, control=control.model_dump_json(), approval_asked_at=now())
    path = f"{SET}/approveRollingUpgrade"
    assert web.ask("POST", path, body={"instanceIds": ["0"]}).status_code == 400
    answer = web.ask("POST", path)
    assert answer.status_code == 202, answer.text
    assert poll(web, answer)["status"] == "Succeeded"
    with web.desk.database.read() as connection:
        assert load_upgrade(connection, 1).approved_batch == 1
    assert web.ask("POST", path).status_code == 409


def test_after_a_crash_between_start_and_end_it_is_waited_for_and_not_begun_again(web):
    start(web)
    with web.desk.database.read() as connection:
        (operation,) = load_open_operations(connection)
    assert (operation.kind, operation.goal["upgrade"]) == (UPGRADE_AWAIT, 1)
    step(web)
    step(web)
    with web.desk.database.read() as connection:
        assert load_upgrade(connection, 1).code is UpgradeCode.ROLLING_FORWARD
    assert load(web).upgrade.id == 1


def test_a_beginning_that_is_stepped_again_begins_no_second_upgrade(web):
    web.ask("POST", f"{SET}/osRollingUpgrade")
    with web.desk.database.read() as connection:
        (waiting,) = load_open_operations(connection)
    seen = web.desk.board.find("web").view
    assert step(web, seen=seen) == [None]
    end(web, UpgradeCode.CANCELLED)
    assert make_runner(web, seen=seen).step_once(waiting) is None  # read before it began
    with web.desk.database.read() as connection:
        assert len(load_upgrades(connection, "web")) == 1
