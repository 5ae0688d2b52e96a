"""Windows scale sets: what is refused when a spec is applied, and how instances are made."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from labctl.controller.build import build_domain, build_seed, deadlines
from labctl.controller.desired import NO_CAPACITY, apply_spec, rerun
from labctl.controller.lab import Lab
from labctl.controller.platform import foresee
from labctl.drivers.acceleration import Acceleration, AccelerationKind
from labctl.drivers.cloudbase_seed import CloudbaseSeed
from labctl.drivers.domain import Hardware
from labctl.drivers.hypervisor import Hypervisor
from labctl.drivers.seed import SeedContent
from labctl.errors import InvalidError, RefusedError
from labctl.model.image import ImageDefinition, ImageVersion, OsType, VersionNumber
from labctl.model.instance import Generation, Instance, Wanted
from labctl.model.plan import Hold
from labctl.model.spec import ScaleSetSpec
from labctl.planner import Timing
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.gallery import add_version, ensure_definition
from labctl.store.scale_sets import load_view
from tests.controller.identities import make_identity

NOW = datetime(2026, 11, 23, tzinfo=UTC)
QUIET = {"windowsConfiguration": {"enableAutomaticUpdates": False}}
AUTOMATIC = {"upgradePolicy": {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}}}
HEALTH = {"applicationHealth": {"protocol": "tcp", "port": 80}}


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "labctl.db")
    with made.write() as connection:
        for digit, os_type in enumerate((OsType.LINUX, OsType.WINDOWS)):
            definition = ImageDefinition(name=os_type.value, os_type=os_type)
            ensure_definition(connection, definition, NOW)
            image = ImageVersion(
                definition=os_type.value,
                version=VersionNumber(1, 0, 0),
                digest=str(digit) * 64,
                file_size=1,
                virtual_size=1,
                created_at=NOW,
                published_at=NOW,
            )
            add_version(connection, image)
    yield made
    made.close()


def make_spec(definition, **values):
    return ScaleSetSpec.model_validate(
        {
            "name": "web",
            "capacity": 1,
            "image": {"definition": definition},
            "health": HEALTH,
            **values,
        }
    )


def apply(database, definition, **values):
    with database.write() as connection:
        return apply_spec(connection, make_spec(definition, **values), now=NOW)


def test_a_windows_image_needs_a_windows_configuration(database):
    with pytest.raises(InvalidError, match="has a Windows image and no windowsConfiguration"):
        apply(database, "windows")
    assert apply(database, "windows", windowsConfiguration={}).created


def test_a_windows_configuration_needs_a_windows_image(database):
    with pytest.raises(InvalidError, match="and no Windows image") as caught:
        apply(database, "linux", **QUIET)
    assert "'linux' is linux" in caught.value.detail


def test_automatic_upgrades_are_refused_while_windows_update_may_be_on(database):
    with pytest.raises(InvalidError, match="enableAutomaticUpdates to be false"):
        apply(database, "windows", **AUTOMATIC)
    assert apply(database, "windows", **AUTOMATIC, **QUIET).created


def test_no_rollout_begins_while_the_requirement_is_not_met(database):
    apply(database, "windows", **AUTOMATIC, **QUIET)
    with database.read() as connection:
        view = load_view(connection, "web", capacity=NO_CAPACITY)
        loud = view.spec.windows_configuration.model_copy(update={"enable_automatic_updates": True})
        # What another labctl may have stored.
        quiet, spec = view, view.spec.model_copy(update={"windows_configuration": loud})
        view = replace(view, spec=spec)
        decision = foresee(connection, view, timing=Timing(), now=NOW).decision
        ready = foresee(connection, quiet, timing=Timing(), now=NOW).decision
    assert "up to date" in ready.reason
    assert isinstance(decision, Hold)
    assert "windowsConfiguration.enableAutomaticUpdates to be false" in decision.reason


def test_a_scale_set_stays_what_it_is(database):
    apply(database, "windows", **QUIET)
    with pytest.raises(RefusedError, match="cannot change between Linux and Windows"):
        apply(database, "linux")
    loud = {"windowsConfiguration": {"enableAutomaticUpdates": True}}
    assert "windowsConfiguration changed" in apply(database, "windows", **loud).changes[0]


def test_custom_data_of_windows_is_not_repeated_on_the_same_disk(database):
    apply(database, "windows", **QUIET)
    with (
        database.write() as connection,
        pytest.raises(RefusedError, match="cannot be repeated") as caught,
    ):
        rerun(connection, "web", instances=(), custom_data=True, extensions=False, now=NOW)
    assert "labctl instance reimage" in caught.value.hint


@pytest.mark.parametrize(
    ("definition", "values", "hardware", "seed"),
    [
        ("linux", {}, Hardware.LINUX, SeedContent),
        ("windows", QUIET, Hardware.WINDOWS, CloudbaseSeed),
        ("windows", {"windowsConfiguration": {"drivers": "virtio"}}, Hardware.WINDOWS_VIRTIO, None),
    ],
    ids=["linux", "windows", "virtio"],
)
def test_an_instance_is_made_as_its_spec_says(
    database, tmp_path, definition, values, hardware, seed
):
    apply(database, definition, **values)
    settings = Settings(state_dir=tmp_path, uri="test:///default")
    lab = Lab(
        settings=settings,
        database=database,
        hypervisor=Hypervisor(settings.uri, state_dir=tmp_path),
        acceleration=Acceleration(kind=AccelerationKind.TCG, reason=""),
        boots_at_once=1,
        controller_public_key="ssh-ed25519 AAAA",
    )
    generation = Generation(
        number=2,
        image_version="1.0.0",
        image_digest="1" * 64,
        model_revision=1,
        prepared=True,
    )
    instance = Instance(
        name="web_0",
        ordinal=0,
        wanted=Wanted.RUNNING,
        generation=2,
        generations=(generation,),
        created_at=NOW,
    )
    with database.write() as connection:
        view = load_view(connection, "web", capacity=NO_CAPACITY)
        identity = make_identity(connection, "web_0", 0)
    domain = build_domain(lab, view, instance, generation, identity, [])
    assert domain.hardware is hardware
    content = build_seed(lab, instance, generation, view.spec, identity)
    assert isinstance(content, seed or CloudbaseSeed)
    minutes = 75 if hardware.is_windows else 10
    assert deadlines(lab, view.spec).ssh == timedelta(minutes=minutes)
    assert (content.hostname, content.public_keys) == ("web-0", ("ssh-ed25519 AAAA",))
