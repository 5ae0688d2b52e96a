from uuid import uuid4

from labctl.controller.clock import now
from labctl.store.operations import OperationStatus, add_operation, end_operation
from tests.api.labs import GROUP, put_set

PATH = "providers/Microsoft.Compute/locations/local/operations"


def add(api, resource, status=None, error=None, **goal):
    with api.desk.database.write() as connection:
        added = add_operation(
            connection, kind="k", resource=resource, goal=goal, who="me", now=now()
        )
        if status is not None:
            end_operation(connection, added.id, status, now=now(), error=error)
    return added.id


def test_an_unknown_operation_is_not_found(api):
    for name in (str(uuid4()), "x", "%00"):
        answer = api.ask("GET", f"{PATH}/{name}")
        assert answer.json()["error"]["code"] == "OperationNotFound"


def test_the_monitor_gives_the_resource_back_to_whoever_wrote_it(api):
    put_set(api)
    resource = api.ask("GET", f"{GROUP}/Web").json()["id"]
    for method, status in (("PUT", 200), ("PATCH", 200), ("POST", 204), ("DELETE", 204)):
        identifier = add(api, resource, OperationStatus.SUCCEEDED, method=method)
        answer = api.ask("GET", f"{PATH}/{identifier}", query={"monitor": "true"})
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["id"] == resource


def test_the_monitor_of_what_is_gone_since_is_empty(api):
    for resource in (f"/subscriptions/{api.desk.subscription_id}/{GROUP}/none", "/unknown/thing"):
        identifier = add(api, resource, OperationStatus.SUCCEEDED, method="PUT")
        answer = api.ask("GET", f"{PATH}/{identifier}", query={"monitor": "true"})
        assert (answer.status_code, answer.content) == (204, b"")


def test_a_failure_is_told_in_both_shapes(api):
    error = {"code": "C", "message": "m", "details": [{"code": "D", "message": "d"}]}
    identifier = add(api, "/x", OperationStatus.FAILED, error)
    body = api.ask("GET", f"{PATH}/{identifier}").json()
    assert (body["status"], body["error"]) == ("Failed", error)
    answer = api.ask("GET", f"{PATH}/{identifier}", query={"monitor": "true"})
    assert (answer.status_code, answer.json()) == (409, {"error": error})


def test_one_that_runs_says_when_to_ask_again(api):
    identifier = add(api, "/x")
    assert api.ask("GET", f"{PATH}/{identifier}").headers["Retry-After"] == "1"
    answer = api.ask("GET", f"{PATH}/{identifier}", query={"monitor": "TRUE"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
