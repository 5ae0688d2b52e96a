"""A changed model in the store: who gets it, with which image, and when."""

from types import SimpleNamespace

import pytest

from labctl.controller.desired import NO_CAPACITY, apply_spec, foresee_spec, reimage
from labctl.controller.goal import model_in_force
from labctl.controller.models import InstanceNeed, find_model_image, update_instances
from labctl.controller.reconciler import Reconciler
from labctl.controller.record import record
from labctl.controller.upgrades import cancel_upgrade, find_changes, find_target
from labctl.errors import NotFoundError, RefusedError
from labctl.model.image import VersionNumber
from labctl.model.instance import ExtensionRun, Failure, Rung, Wanted
from labctl.model.plan import (
    BeginBatch,
    CreateInstance,
    EndUpgrade,
    Plan,
    RenewInstances,
    Rollout,
    StartUpgrade,
)
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import StartedBy, UpgradeCode, UpgradePurpose
from labctl.planner import foresight, make_members
from labctl.planner import plan as make_plan
from labctl.planner.impact import Need
from labctl.store.gallery import remove_version
from labctl.store.instances import (
    change_generation,
    change_instance,
    save_extension_run,
    save_failure,
)
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import change_upgrade, insert_upgrade, load_upgrade, load_upgrades
from tests.controller.identities import make_identity
from tests.controller.test_record import NOW, view
from tests.controller.test_record import database as database  # noqa: PLC0414 - a fixture

HEALTH = {"probe": {"protocol": "tcp", "port": 80}}
ROLLING = {"mode": "Rolling"}
AUTOMATIC = {"mode": "Automatic"}


def make_spec(mode=ROLLING, **values):
    document = {
        "name": "web",
        "capacity": 2,
        "image": {"definition": "tiny", "version": "1.0.0"},
        "health": HEALTH,
        "upgradePolicy": mode,
        **values,
    }
    return ScaleSetSpec.model_validate(document)


def decide(database, *decisions):
    facts = view(database)
    with database.write() as connection:
        record(connection, facts, decisions, now=NOW, new_identity=make_identity)


def apply(database, mode=ROLLING, **values):
    with database.write() as connection:
        return apply_spec(connection, make_spec(mode, **values), now=NOW)


def script(text):
    return {"customData": {"inline": text}}


@pytest.fixture
def web(database):
    apply(database)
    decide(database, *(CreateInstance(ordinal=n, reason="capacity 2") for n in (0, 1)))
    with database.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, prepared=True, started_at=NOW, ready_at=NOW)
    return database


def start(database, version="1.0.0", digest="0" * 64):
    target = {"target_version": version, "target_digest": digest}
    revision = view(database).model_revision
    decide(database, StartUpgrade(model_revision=revision, reason="r", **target))
    return view(database).upgrade


def end(database, code):
    upgrade = view(database).upgrade.id
    decide(database, EndUpgrade(upgrade=upgrade, code=code, reason="r"))


@pytest.mark.parametrize("mode", [ROLLING, AUTOMATIC])
def test_an_apply_asks_for_a_rollout_and_tells_what_each_instance_needs(web, mode):
    applied = apply(web, mode, **script("#!/bin/sh\nnew"))
    assert view(web).rollout == Rollout(asked_at=NOW)
    assert applied.needs == tuple(
        InstanceNeed(instance=f"web_{n}", model_revision=1, need=Need.OS_SWAP) for n in (0, 1)
    )
    how = "batch by batch" if mode is ROLLING else "now, all at once"
    assert applied.changes[0] == (
        "customData changed, which needs a new OS disk (custom data runs once on each new OS "
        f"disk); new instances get it, the others {how}"
    )


def test_manual_asks_for_none_and_takes_an_older_wish_back(web):
    apply(web, **script("#!/bin/sh\nnew"))
    applied = apply(web, {"mode": "Manual"}, **script("#!/bin/sh\nnewer"))
    assert view(web).rollout is None
    assert len(applied.needs) == 2
    assert "by labctl update-instances web" in applied.changes[0]


def test_what_holds_at_once_asks_for_no_rollout(web):
    assert apply(web, capacity=3).needs == ()
    assert view(web).rollout is None


def test_a_dry_run_tells_the_same_and_changes_nothing(web):
    before = view(web)
    foreseen = foresee_spec(web, make_spec(**script("#!/bin/sh\nnew")), now=NOW)
    assert view(web) == before
    assert apply(web, **script("#!/bin/sh\nnew")) == foreseen


def test_a_dry_run_refuses_what_apply_refuses(web):
    for changes in ({"network": {"type": "nat"}}, {"zones": ["1", "2"]}):
        with pytest.raises(RefusedError, match=f"{next(iter(changes))} of scale set 'web' cannot"):
            foresee_spec(web, make_spec(**changes), now=NOW)
    assert view(web).model_revision == 1


def test_a_dry_run_of_a_new_scale_set_makes_none(database):
    assert foresee_spec(database, make_spec(), now=NOW).created
    assert apply(database).created


@pytest.mark.parametrize(("mode", "is_kept"), [(ROLLING, True), ({"mode": "Manual"}, False)])
def test_what_is_to_get_another_model_is_not_tried_again_with_its_old_one(web, mode, is_kept):
    failure = Failure(rung=Rung.CUSTOM_DATA, message="exit code 7", at=NOW)
    with web.write() as connection:
        save_failure(connection, "web_0", 1, failure)
    apply(web, mode, **script("#!/bin/sh\nnew"))
    assert view(web).instances[0].current.failure == (failure if is_kept else None)


@pytest.mark.parametrize("code", [UpgradeCode.CANCELLED, UpgradeCode.FAULTED])
def test_the_same_spec_again_asks_anew_for_what_did_not_come_to_its_end(web, code):
    apply(web, **script("#!/bin/sh\nnew"))
    start(web)
    assert view(web).rollout is None
    assert apply(web, **script("#!/bin/sh\nnew")).changes == ()
    assert view(web).rollout is None  # it is under way
    end(web, code)
    assert view(web).rollout is None
    apply(web, **script("#!/bin/sh\nnew"))
    assert view(web).rollout == Rollout(asked_at=NOW)


def test_the_same_spec_asks_again_for_a_rollout_that_is_being_cancelled(web):
    apply(web, **script("#!/bin/sh\nnew"))
    start(web)
    with web.write() as connection:
        cancel_upgrade(connection, "web", now=NOW)
    apply(web, **script("#!/bin/sh\nnew"))
    assert view(web).rollout is not None


def test_a_newer_model_overtakes_the_one_that_is_rolling(web):
    apply(web, **script("#!/bin/sh\nnew"))
    running = start(web)
    apply(web, **script("#!/bin/sh\nnewer"))
    assert view(web).upgrade.cancel_asked_at == NOW
    assert view(web).rollout is not None
    assert running.model_revision == 2


def test_a_newer_model_waits_for_an_image_upgrade(web):
    start(web, "1.1.0", "1" * 64)
    with web.write() as connection:
        change_upgrade(connection, view(web).upgrade.id, purpose=UpgradePurpose.OS_IMAGE.value)
    apply(web, **script("#!/bin/sh\nnew"))
    assert view(web).upgrade.cancel_asked_at is None
    assert view(web).rollout is not None


def test_a_changed_image_reference_is_part_of_the_rollout(web):
    apply(web, image={"definition": "tiny", "version": "1.1.0"})
    assert view(web).rollout == Rollout(asked_at=NOW, image_version="1.1.0", image_digest="1" * 64)


def test_an_image_that_the_user_upgraded_to_stays_when_the_script_changes(web):
    """The spec still names 1.0.0; its change is no reason to go back."""
    start(web, "1.1.0", "1" * 64)
    end(web, UpgradeCode.COMPLETED)
    assert view(web).image_version == "1.1.0"
    apply(web, **script("#!/bin/sh\nnew"))
    assert view(web).rollout == Rollout(asked_at=NOW)


def test_an_image_reference_counts_as_changed_until_an_upgrade_is_through(web):
    apply(web, image={"definition": "tiny", "version": "1.1.0"})
    start(web, "1.1.0", "1" * 64)
    end(web, UpgradeCode.FAULTED)
    with web.read() as connection:
        assert find_model_image(connection, view(web), now=NOW).name == "tiny/1.1.0"
    apply(web, image={"definition": "tiny", "version": "1.1.0"})
    start(web, "1.1.0", "1" * 64)
    end(web, UpgradeCode.COMPLETED)
    with web.read() as connection:
        assert find_model_image(connection, view(web), now=NOW) is None


def test_the_first_of_two_starts_wins(web):
    apply(web, **script("#!/bin/sh\nnew"))
    target = {"target_version": "1.0.0", "target_digest": "0" * 64, "model_revision": 2}
    decide(web, StartUpgrade(reason="r", **target), StartUpgrade(reason="r", **target))
    with web.read() as connection:
        assert len(load_upgrades(connection, "web")) == 1
        assert load_upgrade(connection, 1).purpose is UpgradePurpose.MODEL


def test_update_instances_takes_those_that_are_named_and_need_it(web):
    apply(web, {"mode": "Manual"}, **script("#!/bin/sh\nnew"))

    def update(*names):
        with web.write() as connection:
            return update_instances(connection, "web", names, now=NOW)

    assert update("web_1") == ("web_1",)
    assert [i.generation for i in view(web).instances] == [1, 2]
    assert view(web).instances[1].current.model_revision == 2
    assert update() == ("web_0",)
    assert update() == ()


def test_update_instances_is_refused_before_anything_changes(web):
    def update(*names):
        with web.write() as connection:
            return update_instances(connection, "web", names, now=NOW)

    apply(web, {"mode": "Manual"}, **script("#!/bin/sh\nnew"))
    with pytest.raises(NotFoundError, match="web_9"):
        update("web_0", "web_9")
    with web.write() as connection:
        change_instance(connection, "web_1", wanted=Wanted.DELETED.value)
    with pytest.raises(NotFoundError, match="web_1"):
        update("web_1")
    start(web)
    with pytest.raises(RefusedError, match="upgrade 1 of 'web' is running"):
        update("web_0")
    assert [i.generation for i in view(web).instances] == [1, 1]


def test_all_instances_on_another_image_move_the_set_to_it(web):
    apply(web, {"mode": "Manual"}, image={"definition": "tiny", "version": "1.1.0"})
    with web.write() as connection:
        update_instances(connection, "web", ["web_0"], now=NOW)
    assert view(web).image_version == "1.0.0"
    with web.write() as connection:
        update_instances(connection, "web", [], now=NOW)
        assert (
            find_model_image(
                connection, load_view(connection, "web", capacity=NO_CAPACITY), now=NOW
            )
            is None
        )
    assert view(web).image_version == "1.1.0"


def essence(scale_set):
    return (
        scale_set.image_version,
        scale_set.rollout,
        [(i.generation, i.restart_asked_at, i.generations) for i in scale_set.instances],
    )


@pytest.mark.parametrize(
    "change",
    [
        script("#!/bin/sh\nnew"),
        {"size": {"vcpus": 2}},
        {"extensions": [{"name": "app", "script": "new"}]},
        {"extensionsTimeBudget": "20m"},
    ],
)
def test_the_store_does_with_a_renewal_what_the_planner_foresees(web, change):
    apply(web, {"mode": "Manual"}, extensions=[{"name": "app", "script": "old"}])
    with web.write() as connection:
        update_instances(connection, "web", [], now=NOW)
        for name in ("app", "other"):
            run = ExtensionRun(
                name=name, started_at=NOW, finished_at=NOW, exit_code=0 if name == "app" else 3
            )
            save_extension_run(connection, "web_0", 1, run)
    apply(web, AUTOMATIC, **({"extensions": [{"name": "app", "script": "old"}]} | change))
    decision = RenewInstances(
        instances=("web_0", "web_1"),
        target_version="1.0.0",
        target_digest="0" * 64,
        model_revision=3,
        reason="r",
    )
    foreseen = foresight.record(view(web), decision, NOW)
    decide(web, decision)
    assert essence(view(web)) == essence(foreseen)
    assert view(web).rollout is None


def test_what_an_upgrade_changes_is_told_from_the_oldest_model_on(web):
    apply(web, {"mode": "Manual"}, size={"vcpus": 2})
    apply(web, {"mode": "Manual"}, size={"vcpus": 2}, extensionsTimeBudget="20m")
    impacts, needs = find_changes(view(web), "0" * 64, 3)
    assert [i.field for i in impacts] == ["size", "extensionsTimeBudget", "upgradePolicy"]
    assert [n.need for n in needs] == [Need.RESTART, Need.RESTART]
    _, needs = find_changes(view(web), "1" * 64, 3)
    assert [n.need for n in needs] == [Need.OS_SWAP, Need.OS_SWAP]


def test_an_apply_is_through_when_its_rollout_is(web):
    def find_newest():
        with web.read() as connection:
            return next(iter(load_upgrades(connection, "web", limit=1)), None)

    goal = model_in_force(find_newest, after=0)
    apply(web, **script("#!/bin/sh\nnew"))
    assert goal(view(web), Plan(), NOW) is None
    start(web)
    assert goal(view(web), Plan(), NOW) is None
    end(web, UpgradeCode.CANCELLED)
    outcome = goal(view(web), Plan(), NOW)
    assert (outcome.succeeded, outcome.message) == (
        False,
        "upgrade 1 Cancelled: 0 upgraded, 0 failed; r",
    )
    # An older one is not this command's; the instances decide, and they are not up yet.
    assert model_in_force(find_newest, after=1)(view(web), Plan(), NOW) is None


# --- commands beside a daemon -----------------------------------------------------------------


def record_late(database, before, *decisions):
    """As the loop does, with what was seen before something else happened."""
    lab = SimpleNamespace(database=database, new_identity=lambda _: make_identity)
    plan = Plan(decisions=decisions) if decisions else make_plan(before, NOW)
    Reconciler(lab, "web")._record(before, plan, NOW)


@pytest.mark.parametrize("mode", [ROLLING, AUTOMATIC])
def test_a_model_that_is_applied_while_the_last_one_is_decided_is_not_forgotten(web, mode):
    apply(web, mode, **script("#!/bin/sh\n# 2\n"))
    before = view(web)
    apply(web, mode, **script("#!/bin/sh\n# 3\n"))
    record_late(web, before)
    assert view(web).rollout is not None
    record_late(web, view(web))
    assert view(web).rollout is None


def test_a_reimage_while_a_batch_is_decided_does_not_give_one_number_twice(web):
    apply(web, ROLLING, **script("#!/bin/sh\n# 2\n"))
    record_late(web, view(web))  # the upgrade begins
    before = view(web)
    with web.write() as connection:
        reimage(connection, ["web_0"], now=NOW)
    batch = BeginBatch(upgrade=before.upgrade.id, batch=1, instances=("web_0",), reason="batch 1")
    record_late(web, before, batch)  # IntegrityError before
    assert (view(web).upgrade.batches, view(web).instances[0].generation) == (0, 2)


def test_an_upgrade_that_the_hook_began_is_seen_before_anything_else_is_decided(web):
    apply(web, AUTOMATIC, **script("#!/bin/sh\n# 2\n"))
    before = view(web)
    with web.write() as connection:
        found = find_target(connection, before, "1.1.0", now=NOW)
        insert_upgrade(
            connection,
            scale_set="web",
            started_by=StartedBy.PLATFORM,
            target_version="1.1.0",
            target_digest=found.image.digest,
            model_revision=2,
            policy=before.spec.upgrade_policy.rolling_upgrade_policy,
            health_timeout=before.spec.upgrade_policy.health_timeout,
            restores=True,
            members=make_members(before),
            now=NOW,
        )
    record_late(web, before)
    assert [i.generation for i in view(web).instances] == [1, 1]


def test_the_image_of_a_rollout_that_waits_cannot_be_deleted(web):
    start(web)  # an upgrade that the rollout waits for
    apply(web, AUTOMATIC, image={"definition": "tiny", "version": "1.1.0"})
    assert view(web).rollout.image_digest == "1" * 64
    with web.write() as connection, pytest.raises(RefusedError, match="is in use"):
        remove_version(connection, "tiny", VersionNumber(1, 1, 0), now=NOW)
