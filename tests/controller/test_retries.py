"""What applying a spec again does to instances that exist."""

from dataclasses import replace
from datetime import timedelta

import pytest

from labctl.controller.desired import apply_spec
from labctl.controller.protection import protect
from labctl.model.instance import ExtensionFault, ExtensionRun, Failure, Rung
from labctl.store.instances import change_generation, save_extension_run, save_failure
from tests.controller.test_record import NOW, database, decide, identity, spec, view, web

__all__ = ["database", "decide", "identity", "web"]  # fixtures

RUN = ExtensionRun(
    name="app", started_at=NOW, finished_at=NOW + timedelta(seconds=1), exit_code=0, tag="1"
)
APP = {"name": "app", "script": "true", "forceUpdateTag": "1", "protectedSettings": {"t": "old"}}
BASE = {"name": "base", "script": "true"}


@pytest.fixture
def running(web):
    """Both instances have run both extensions, web_0 only the first of them well."""
    apply(web, extensions=[BASE, APP])
    with web.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, model_revision=2)
            save_extension_run(connection, name, 1, replace(RUN, name="base", tag=None))
            save_extension_run(connection, name, 1, RUN)
        fault = replace(RUN, exit_code=None, fault=ExtensionFault.CREDENTIAL)
        save_extension_run(connection, "web_0", 1, fault)
        failure = Failure(rung=Rung.EXTENSIONS, message="refused", at=NOW)
        save_failure(connection, "web_0", 1, failure)
    return web


def apply(database, **values):
    with database.write() as connection:
        return apply_spec(connection, spec(**values), now=NOW).changes


def state(database):
    """Model revision, runs and failure of each instance."""
    return {
        i.name: (
            i.current.model_revision,
            sorted(run.name for run in i.current.extensions),
            i.current.failure is not None,
        )
        for i in view(database).instances
    }


def test_fault_and_tag_of_a_run_are_kept(running):
    runs = {run.name: run for run in view(running).instances[0].current.extensions}
    assert (runs["app"].fault, runs["app"].tag) == (ExtensionFault.CREDENTIAL, "1")
    assert (runs["base"].fault, runs["base"].tag) == (None, None)


def test_a_renewed_credential_reaches_what_failed_without_a_new_os_disk(running):
    renewed = {**APP, "protectedSettings": {"t": "new"}}
    changes = apply(running, extensions=[BASE, renewed])
    assert "web_0: trying again what failed, with the model as it is now" in changes
    assert state(running) == {
        "web_0": (3, ["base"], False),
        "web_1": (2, ["app", "base"], False),
    }
    assert apply(running, extensions=[BASE, renewed]) == ()


def test_what_has_changed_runs_again_on_what_failed_even_if_it_had_succeeded(running):
    apply(running, extensions=[{**BASE, "script": "echo"}, APP])
    assert state(running)["web_0"] == (3, [], False)


def test_a_change_that_needs_an_os_disk_leaves_the_model_of_what_failed(running):
    apply(running, extensions=[BASE, {**APP, "timeout": "1m"}], customData={"inline": "#!/bin/sh"})
    assert state(running)["web_0"] == (2, ["base"], False)


def test_a_changed_tag_alone_runs_again_everywhere(running):
    tagged = {**APP, "forceUpdateTag": "2"}
    changes = apply(running, extensions=[BASE, tagged])
    assert "web_1: running extension 'app' again, forceUpdateTag 2" in changes
    assert state(running)["web_1"] == (3, ["app", "base"], False)
    assert not view(running).instances[1].current.is_through(view(running).spec.extensions[1])
    assert apply(running, extensions=[BASE, tagged]) == ()


def test_a_tag_that_is_taken_away_runs_nothing(running):
    plain = {key: value for key, value in APP.items() if key != "forceUpdateTag"}
    changes = apply(running, extensions=[BASE, plain])
    assert not any("running extension" in change for change in changes)
    instance = view(running).instances[1]
    assert all(map(instance.current.is_through, view(running).spec.extensions))


def test_a_tag_changed_with_the_script_waits_for_the_next_os_disk(running):
    apply(running, extensions=[BASE, {**APP, "script": "echo", "forceUpdateTag": "2"}])
    assert state(running)["web_1"] == (2, ["app", "base"], False)


def test_a_failure_that_is_suppressed_is_not_tried_again_by_each_apply(web):
    tolerated = {**BASE, "suppressFailures": True}
    apply(web, extensions=[tolerated])
    with web.write() as connection:
        change_generation(connection, "web_0", 1, model_revision=2)
        save_extension_run(connection, "web_0", 1, replace(RUN, name="base", exit_code=3))
    assert apply(web, extensions=[tolerated]) == ()


def test_protected_settings_are_kept_by_the_store_and_come_back(running):
    app = view(running).spec.extensions[1]
    assert app.protected_settings == {"t": "old"}


def test_an_instance_protected_from_scale_set_actions_keeps_its_model(running):
    with running.write() as connection:
        protect(connection, ["web_0", "web_1"], scale_in=True, actions=True, now=NOW)
    tagged = APP | {"forceUpdateTag": "2", "protectedSettings": {"t": "new"}}
    changes = apply(running, extensions=[BASE, tagged])
    assert state(running) == {"web_0": (2, ["base"], False), "web_1": (2, ["app", "base"], False)}
    assert changes[1:] == ("web_0: trying again what failed",)
