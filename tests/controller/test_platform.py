"""What automatic upgrades read from the store."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from labctl.controller import platform as module
from labctl.controller.platform import Platform, foresee
from labctl.controller.record import record
from labctl.model.plan import EndUpgrade, Hold
from labctl.model.upgrade import StartedBy, UpgradeCode
from labctl.planner import Rollout, Timing, make_members
from labctl.store.upgrades import insert_upgrade
from tests.controller.test_models import (
    NOW,
    CreateInstance,
    apply_spec,
    decide,
    make_identity,
    make_spec,
    view,
)
from tests.controller.test_models import database as database  # noqa: PLC0414 - a fixture

AUTO = {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}}


@pytest.fixture
def web(database):
    latest = {"image": {"definition": "tiny", "version": "latest"}}
    with database.write() as connection:
        apply_spec(connection, make_spec(AUTO, **latest), now=NOW)
    decide(database, CreateInstance(ordinal=0, reason="capacity"))
    return database


def end_one(database, code, version="1.1.0"):
    facts = view(database)
    with database.write() as connection:
        number = insert_upgrade(
            connection,
            scale_set="web",
            started_by=StartedBy.PLATFORM,
            target_version=version,
            target_digest=version[2] * 64,
            model_revision=1,
            policy=facts.spec.upgrade_policy.rolling_upgrade_policy,
            health_timeout=timedelta(seconds=1),
            restores=True,
            members=make_members(facts),
            now=NOW,
        )
    facts = view(database)
    with database.write() as connection:
        ended = EndUpgrade(upgrade=number, code=code, reason="as it is")
        record(connection, facts, (ended,), now=NOW, new_identity=make_identity)


def ask(database):
    """The decision, and how many statements it took."""
    statements = []
    facts = view(database)
    event.listen(database._engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    with database.read() as connection:
        found = foresee(connection, facts, timing=Timing(), now=NOW)
    return found.decision, len(statements)


def test_the_cost_of_a_turn_does_not_grow_with_the_history(web):
    end_one(web, UpgradeCode.FAULTED)
    _, first = ask(web)
    for _ in range(20):
        end_one(web, UpgradeCode.FAULTED)
    _, later = ask(web)
    assert later == first


def test_a_faulted_attempt_blocks_also_after_many_to_other_versions(web):
    with web.write() as connection:
        connection.exec_driver_sql(
            "UPDATE generation SET image_digest = 'old', image_version='0.9.0'"
        )
    end_one(web, UpgradeCode.FAULTED)
    for _ in range(60):
        end_one(web, UpgradeCode.CANCELLED, "1.0.0")
    decision, _ = ask(web)
    assert isinstance(decision, Hold)
    assert "ended Faulted" in decision.reason


def test_a_renewed_credential_is_looked_at_at_once(web, monkeypatch):
    faults = [("app", "credential 'protectedSettings.token' expired")]
    monkeypatch.setattr(module, "find_unreachable", lambda *_, **__: tuple(faults))
    lab = SimpleNamespace(database=web, settings=None)
    platform, later = Platform(lab, Timing()), NOW + timedelta(seconds=1)
    assert "expired" in platform._find_absent(view(web), NOW).reason
    faults.clear()
    assert platform._find_absent(view(web), later) is not None  # asked once a minute
    renewed = replace(view(web), model_revision=2)
    assert platform._find_absent(renewed, later) is None


def test_an_offer_that_is_deleted_between_look_and_start_is_a_hold(web, monkeypatch):
    with web.write() as connection:
        connection.exec_driver_sql(
            "UPDATE generation SET image_digest = 'old', image_version='0.9.0'"
        )
    foreseen = module.foresee

    def delete_it(connection, facts, **values):
        found = foreseen(connection, facts, **values)
        offer = replace(
            found.offer, image=found.offer.image.model_copy(update={"version": "9.9.9"})
        )
        return replace(found, decision=Rollout(offer=offer, reason="newer"))

    monkeypatch.setattr(module, "foresee", delete_it)
    monkeypatch.setattr(module, "find_unreachable", lambda *_, **__: ())
    platform = Platform(SimpleNamespace(database=web, settings=None), Timing())
    hold = platform.consider(view(web), NOW)
    assert hold.reason == (
        "image version tiny/9.9.9 was deleted meanwhile; another one is looked for"
    )
