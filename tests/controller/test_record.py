from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from labctl.controller.desired import NO_CAPACITY, apply_spec, reimage, scale, set_wanted
from labctl.controller.protection import protect
from labctl.controller.record import record
from labctl.controller.upgrades import Target
from labctl.controller.upgrades import start_upgrade as admit
from labctl.errors import NotFoundError, RefusedError
from labctl.model.image import ImageDefinition, ImageVersion, VersionNumber
from labctl.model.instance import DomainFacts, Health, HealthState, Identity, Power, Wanted
from labctl.model.plan import (
    BeginBatch,
    BeginRollback,
    CreateInstance,
    EndBatch,
    EndUpgrade,
    MoveMember,
    RemoveInstance,
    Replacement,
)
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import (
    Member,
    MemberState,
    StartedBy,
    UpgradeCode,
    UpgradeError,
    UpgradeErrorCode,
)
from labctl.planner import foresight
from labctl.store.database import Database
from labctl.store.events import load_events
from labctl.store.gallery import add_version, ensure_definition, find_version
from labctl.store.instances import (
    change_generation,
    change_instance,
    load_identities,
    load_reserved_ports,
    save_health,
)
from labctl.store.scale_sets import load_view
from labctl.store.upgrades import change_upgrade, insert_upgrade, load_upgrade

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "labctl.db")
    with made.write() as connection:
        ensure_definition(connection, ImageDefinition(name="tiny", os_type="linux"), NOW)
        for minor in (0, 1):
            add_version(
                connection,
                ImageVersion(
                    definition="tiny",
                    version=VersionNumber(1, minor, 0),
                    digest=str(minor) * 64,
                    file_size=1,
                    virtual_size=1,
                    created_at=NOW,
                    published_at=NOW,
                ),
            )
    yield made
    made.close()


def spec(**values):
    image = {"definition": "tiny", "version": "1.0.0"}
    return ScaleSetSpec.model_validate({"name": "web", "capacity": 2, "image": image, **values})


def identity(connection, name, ordinal):
    ports = sorted({1000 + ordinal * 3 + place for place in range(3)})
    return Identity(
        uuid=uuid4(),
        mac=f"52:54:00:00:00:{ordinal:02x}",
        ssh_port=ports[0],
        agent_port=ports[1],
        probe_port=ports[2],
        address=None,
        host_key="key",
        host_key_public="ssh-ed25519 AAAA",
        agent_token="t",
    )


def view(database):
    with database.read() as connection:
        return load_view(connection, "web", capacity=NO_CAPACITY)


def decide(database, *decisions, now=NOW):
    facts = view(database)
    with database.write() as connection:
        record(connection, facts, decisions, now=now, new_identity=identity)


@pytest.fixture
def web(database):
    with database.write() as connection:
        apply_spec(connection, spec(), now=NOW)
    decide(database, *(CreateInstance(ordinal=n, reason="capacity 2") for n in (0, 1)))
    return database


def start_upgrade(database):
    facts = view(database)
    with database.write() as connection:
        return insert_upgrade(
            connection,
            scale_set="web",
            started_by=StartedBy.USER,
            target_version="1.1.0",
            target_digest="1" * 64,
            model_revision=1,
            policy=facts.spec.upgrade_policy.rolling_upgrade_policy,
            health_timeout=timedelta(seconds=30),
            restores=True,
            members=tuple(
                Member(instance=i.name, ordinal=i.ordinal, from_version="1.0.0")
                for i in facts.instances
            ),
            now=NOW,
        )


def test_new_instances_boot_the_version_that_the_set_is_on(web):
    instances = view(web).instances
    assert [i.name for i in instances] == ["web_0", "web_1"]
    assert {(i.generation, i.current.image_version) for i in instances} == {(1, "1.0.0")}
    with web.read() as connection:
        assert load_reserved_ports(connection) == set(range(1000, 1006))


def test_applying_the_same_spec_again_changes_nothing(web):
    with web.write() as connection:
        assert apply_spec(connection, spec(), now=NOW).changes == ()
    assert view(web).model_revision == 1


def test_a_new_script_is_a_new_model_and_a_new_capacity_is_not(web):
    with web.write() as connection:
        scale(connection, "web", 3, now=NOW)
    assert (view(web).model_revision, view(web).spec.capacity) == (1, 3)
    with web.write() as connection:
        changed = spec(capacity=3, customData={"inline": "#!/bin/sh\n"})
        assert "customData changed" in apply_spec(connection, changed, now=NOW).changes[0]
    assert view(web).model_revision == 2
    assert {i.current.model_revision for i in view(web).instances} == {1}


def test_data_disks_can_be_added_and_never_taken_away(web):
    disks = [{"name": "db", "size": "1GiB"}]
    with web.write() as connection:
        apply_spec(connection, spec(dataDisks=disks), now=NOW)
    with web.write() as connection, pytest.raises(RefusedError, match="cannot be taken out"):
        apply_spec(connection, spec(), now=NOW)
    with web.write() as connection, pytest.raises(RefusedError, match="cannot change its size"):
        bigger = [{"name": "db", "size": "2GiB"}]
        apply_spec(connection, spec(dataDisks=bigger), now=NOW)


def test_the_network_stays(web):
    with web.write() as connection, pytest.raises(RefusedError, match="network"):
        apply_spec(connection, spec(network={"type": "nat"}), now=NOW)


def test_nat_subnets_do_not_overlap(database):
    def make(name, capacity=2, **network):
        wish = spec(name=name, capacity=capacity, network={"type": "nat", **network})
        with database.write() as connection:
            apply_spec(connection, wish, now=NOW)

    make("one")
    make("two")
    with pytest.raises(RefusedError, match=r"overlaps 10\.87\.0\.0/22"):
        make("three", subnet="10.87.1.0/24")
    with pytest.raises(RefusedError, match="room for 5 instances"):
        make("small", subnet="10.99.0.0/28", capacity=6)


def test_a_missing_image_is_named_before_anything_changes(database):
    wish = spec(image={"definition": "tiny", "version": "7.0.0"})
    with database.write() as connection, pytest.raises(NotFoundError, match=r"7\.0\.0"):
        apply_spec(connection, wish, now=NOW)
    with database.read() as connection:
        assert load_events(connection) == []


def test_a_batch_gives_each_of_its_instances_a_new_generation(web):
    upgrade_id = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="batch 1"))
    first, second = view(web).instances
    assert (first.generation, first.current.image_version) == (2, "1.1.0")
    assert second.generation == 1
    upgrade = view(web).upgrade
    assert upgrade.members[0].state is MemberState.IN_PROGRESS
    assert (upgrade.members[0].from_generation, upgrade.members[0].to_generation) == (1, 2)


def test_restoring_goes_back_to_the_previous_generation_and_waits_for_it_anew(web):
    upgrade_id = start_upgrade(web)
    with web.write() as connection:
        change_generation(connection, "web_0", 1, started_at=NOW, ready_at=NOW)
    decide(web, BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="batch 1"))
    decide(
        web,
        MoveMember(
            upgrade=upgrade_id, instance="web_0", state=MemberState.ROLLING_BACK, reason="503"
        ),
    )
    first = view(web).instances[0]
    assert first.generation == 1
    assert not first.current.is_ready
    assert first.find_generation(2) is not None  # the bad disk stays until its evidence is saved


def test_an_instance_made_during_an_upgrade_boots_the_old_version_and_joins(web):
    start_upgrade(web)
    decide(web, CreateInstance(ordinal=2, reason="capacity 3"))
    third = view(web).instances[2]
    assert third.current.image_version == "1.0.0"
    assert view(web).upgrade.members[2] == Member(instance="web_2", ordinal=2, from_version="1.0.0")


def test_completion_moves_the_version_of_new_instances_and_a_fault_does_not(web):
    upgrade_id = start_upgrade(web)
    decide(web, EndUpgrade(upgrade=upgrade_id, code=UpgradeCode.FAULTED, reason="bad"))
    assert view(web).image_version == "1.0.0"
    assert view(web).upgrade is None
    upgrade_id = start_upgrade(web)
    decide(web, EndUpgrade(upgrade=upgrade_id, code=UpgradeCode.COMPLETED, reason="done"))
    assert (view(web).image_version, view(web).image_digest) == ("1.1.0", "1" * 64)


def test_the_pause_counts_from_the_end_of_the_latest_batch(web):
    upgrade_id = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="1"))
    decide(web, EndBatch(upgrade=upgrade_id, batch=1, reason="rest"))
    assert view(web).upgrade.batch_ended_at == NOW
    decide(web, BeginBatch(upgrade=upgrade_id, batch=2, instances=("web_1",), reason="2"))
    assert view(web).upgrade.batch_ended_at is None


def test_every_decision_leaves_an_event_with_its_reason(web):
    upgrade_id = start_upgrade(web)
    decide(web, EndUpgrade(upgrade=upgrade_id, code=UpgradeCode.CANCELLED, reason="enough"))
    with web.read() as connection:
        assert load_events(connection)[-1].message == "enough"
        assert load_upgrade(connection, upgrade_id).ended_at == NOW


def test_an_unknown_instance_is_refused_before_the_known_ones_change(web):
    with pytest.raises(NotFoundError, match="web_9"), web.write() as connection:
        set_wanted(connection, ["web_0", "web_9"], Wanted.STOPPED, now=NOW)
    assert replace(view(web).instances[0]).wanted is Wanted.RUNNING


def test_what_an_application_tells_is_kept_with_its_health_and_copied_into_the_upgrade(web):
    wish = '{"rollingUpgrade": {"PhaseOrderingNumber": "3", "SkipUpgrade": "true"}}'
    with web.write() as connection:
        rich = {"applicationHealth": {"port": 80, "requestPath": "/", "typeHandlerVersion": "2.0"}}
        apply_spec(connection, spec(health=rich), now=NOW)
        for name in ("web_0", "web_1"):
            change_generation(
                connection, name, 1, started_at=NOW, ready_at=NOW, prepared=True, model_revision=2
            )
        told = Health(state=HealthState.HEALTHY, since=NOW, detail="ok", custom_metrics=wish)
        save_health(connection, "web_1", told)
    assert [i.health.custom_metrics for i in view(web).instances] == ["", wish]
    running = DomainFacts(generation=1, power=Power.RUNNING)
    facts = view(web)
    facts = replace(facts, instances=tuple(replace(i, domain=running) for i in facts.instances))
    with web.write() as connection:
        image = find_version(connection, "tiny", VersionNumber(1, 1, 0))
        assert image is not None
        upgrade_id = admit(
            connection,
            facts,
            Target(image=image, model_revision=2),
            restores=False,
            started_by=StartedBy.USER,
            now=NOW,
        )
        save_health(connection, "web_1", replace(told, custom_metrics=""))
    with web.read() as connection:
        members = load_upgrade(connection, upgrade_id).members
    assert [(m.phase, m.skips_upgrade) for m in members] == [(None, False), (3, True)]


def essence(scale_set):
    """What the planner's foresight and the store must agree on."""
    upgrade = scale_set.upgrade
    return (
        scale_set.image_version,
        [
            (
                i.name,
                i.wanted,
                i.generation,
                [(g.number, g.image_version, g.started_at, g.ready_at) for g in i.generations],
            )
            for i in scale_set.instances
        ],
        upgrade
        and (
            upgrade.code,
            upgrade.batches,
            upgrade.batch_ended_at,
            [
                (
                    m.pair,
                    m.state,
                    m.batch,
                    m.from_generation,
                    m.to_generation,
                    m.settled_at,
                    m.admitted_at,
                )
                for m in upgrade.members
            ],
        ),
    )


@pytest.mark.parametrize(("uses", "percent"), [(True, 50), (False, 20)])
def test_an_automatic_upgrade_is_bound_by_the_spec_or_by_the_defaults(web, uses, percent):
    policy = {
        "rollingUpgradePolicy": {"maxBatchInstancePercent": 50},
        "automaticOSUpgradePolicy": {"useRollingUpgradePolicy": uses},
    }
    with web.write() as connection:
        apply_spec(connection, spec(upgradePolicy=policy), now=NOW)
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, started_at=NOW, ready_at=NOW, prepared=True)
    running = DomainFacts(generation=1, power=Power.RUNNING)
    facts = view(web)
    facts = replace(facts, instances=tuple(replace(i, domain=running) for i in facts.instances))
    found = {}
    for who in StartedBy:
        with web.write() as connection:
            image = find_version(connection, "tiny", VersionNumber(1, 1, 0))
            target = Target(image=image, model_revision=1)
            number = admit(connection, facts, target, restores=False, started_by=who, now=NOW)
            change_upgrade(connection, number, code=UpgradeCode.CANCELLED.value)
            found[who] = load_upgrade(connection, number).policy.max_batch_instance_percent
    assert found == {StartedBy.USER: 50, StartedBy.PLATFORM: percent}


def test_the_store_makes_successors_as_the_planner_foresees_it(web):
    upgrade_id = start_upgrade(web)
    later = NOW + timedelta(minutes=1)

    def move(name, state):
        return MoveMember(upgrade=upgrade_id, instance=name, state=state, reason="r")

    def batch(number, old, new):
        pair = (Replacement(instance=old, ordinal=new),)
        return BeginBatch(
            upgrade=upgrade_id, batch=number, instances=(old,), reason="r", replacements=pair
        )

    for decision in (
        batch(1, "web_0", 2),
        move("web_0", MemberState.SUCCEEDED),
        RemoveInstance(instance="web_0", reason="r"),
        EndBatch(upgrade=upgrade_id, batch=1, reason="r"),
        batch(2, "web_1", 3),
        move("web_1", MemberState.PENDING),
        RemoveInstance(instance="web_3", reason="r"),
        batch(3, "web_1", 4),
        move("web_1", MemberState.ROLLED_BACK),
        RemoveInstance(instance="web_4", reason="r"),
    ):
        foreseen = foresight.record(view(web), decision, later)
        decide(web, decision, now=later)
        assert essence(view(web)) == essence(foreseen), decision
    third = next(i for i in view(web).instances if i.name == "web_2")
    assert (third.current.image_version, third.current.image_digest) == ("1.1.0", "1" * 64)
    with web.read() as connection:
        assert "comes for web_0" in str([e.message for e in load_events(connection)])
        identities = load_identities(connection, "web")
    assert len({each.uuid for each in identities.values()}) == 5


def test_neither_of_a_pair_is_reimaged_while_it_is_replaced(web):
    upgrade_id = start_upgrade(web)
    pair = (Replacement(instance="web_0", ordinal=2),)
    decide(
        web,
        BeginBatch(
            upgrade=upgrade_id, batch=1, instances=("web_0",), reason="r", replacements=pair
        ),
    )
    for name in ("web_0", "web_2"):
        with (
            web.write() as connection,
            pytest.raises(RefusedError, match="is replacing web_0 by web_2 just now"),
        ):
            reimage(connection, [name], now=NOW)
    # Its upgrade deletes it if it does not become healthy; the old one may be protected.
    with web.write() as connection:
        with pytest.raises(RefusedError, match="'web_2' cannot be protected yet"):
            protect(connection, ["web_2"], scale_in=True, now=NOW)
        assert protect(connection, ["web_0"], scale_in=True, now=NOW) == ["web_0"]


def test_at_a_limit_the_store_keeps_the_reason_while_what_failed_goes_back(web):
    upgrade_id = start_upgrade(web)
    decide(web, BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="r"))
    failed = MoveMember(
        upgrade=upgrade_id, instance="web_0", state=MemberState.FAILED, reason="503"
    )
    decide(web, failed)
    error = UpgradeError(code=UpgradeErrorCode.UNHEALTHY_UPGRADED, message="1 of 1")
    begin = BeginRollback(upgrade=upgrade_id, instances=("web_0",), error=error, reason="back")
    foreseen = foresight.record(view(web), begin, NOW)
    decide(web, begin)
    assert essence(view(web)) == essence(foreseen)
    upgrade = view(web).upgrade
    assert (upgrade.code, upgrade.error) == (UpgradeCode.ROLLING_BACK, error)
    assert (upgrade.members[0].message, upgrade.members[0].ended_at) == ("503", None)


@pytest.mark.parametrize("last", [UpgradeCode.COMPLETED, UpgradeCode.FAULTED])
def test_the_store_does_with_decisions_what_the_planner_foresees(web, last):
    """Properties are proven against the planner's foresight; this ties it to the real store."""
    upgrade_id = start_upgrade(web)
    with web.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, started_at=NOW, ready_at=NOW, prepared=True)

    def move(name, state):
        return MoveMember(upgrade=upgrade_id, instance=name, state=state, reason="r")

    later = NOW + timedelta(minutes=1)
    for decision in (
        BeginBatch(upgrade=upgrade_id, batch=1, instances=("web_0",), reason="r"),
        move("web_0", MemberState.SUCCEEDED),
        EndBatch(upgrade=upgrade_id, batch=1, reason="r"),
        CreateInstance(ordinal=2, reason="r"),
        BeginBatch(upgrade=upgrade_id, batch=2, instances=("web_1",), reason="r"),
        move("web_1", MemberState.ROLLING_BACK),
        move("web_1", MemberState.ROLLED_BACK),
        EndBatch(upgrade=upgrade_id, batch=2, reason="r"),
        move("web_2", MemberState.SKIPPED),
        RemoveInstance(instance="web_2", reason="r"),
        EndUpgrade(upgrade=upgrade_id, code=last, reason="r"),
    ):
        foreseen = foresight.record(view(web), decision, later)
        decide(web, decision, now=later)
        if foreseen.upgrade is not None and foreseen.upgrade.code.is_final:
            foreseen = replace(foreseen, upgrade=None)  # the view shows running ones only
        assert essence(view(web)) == essence(foreseen), decision


def make_ready(database):
    """Both instances run; returns the facts."""
    with database.write() as connection:
        for name in ("web_0", "web_1"):
            change_generation(connection, name, 1, prepared=True, started_at=NOW, ready_at=NOW)
    running = DomainFacts(generation=1, power=Power.RUNNING)
    facts = view(database)
    return replace(facts, instances=tuple(replace(i, domain=running) for i in facts.instances))


def admit_newer(connection, facts):
    image = find_version(connection, "tiny", VersionNumber(1, 1, 0))
    target = Target(image=image, model_revision=facts.model_revision)
    return admit(connection, facts, target, restores=False, started_by=StartedBy.USER, now=NOW)


def test_more_protected_instances_than_the_capacity_take_part_in_an_upgrade(web):
    make_ready(web)
    with web.write() as connection:
        scale(connection, "web", 1, now=NOW)
        for name in ("web_0", "web_1"):  # a moment too late to be heard by `scale`
            change_instance(
                connection, name, protect_from_scale_in=True, protect_from_scale_set_actions=False
            )
    facts = make_ready(web)
    assert (facts.spec.capacity, len(facts.instances)) == (1, 2)
    with web.write() as connection:
        upgrade = admit_newer(connection, facts)
    with web.read() as connection:
        members = load_upgrade(connection, upgrade).members
    assert [m.instance for m in members] == ["web_0", "web_1"]


def test_an_upgrade_does_not_begin_while_instances_come_or_go_and_says_which(web):
    facts = make_ready(web)
    with web.write() as connection:
        scale(connection, "web", 3, now=NOW)
        with pytest.raises(RefusedError) as refused:
            admit_newer(connection, facts)
    assert refused.value.detail == "capacity is 3, present are 2"
