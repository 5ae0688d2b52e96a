from datetime import UTC, datetime

import pytest

from labctl.controller.build import build_domain, build_ignition, find_ignition_entry
from labctl.controller.desired import NO_CAPACITY, apply_spec
from labctl.controller.lab import Lab
from labctl.drivers.acceleration import Acceleration, AccelerationKind
from labctl.drivers.hypervisor import Hypervisor
from labctl.errors import InvalidError
from labctl.model.image import ImageDefinition, ImageVersion, OsType, VersionNumber
from labctl.model.instance import Generation, Instance, Wanted
from labctl.model.spec import ScaleSetSpec
from labctl.settings import Settings
from labctl.store.database import Database
from labctl.store.gallery import add_version, ensure_definition, find_os_type
from labctl.store.scale_sets import load_view
from tests.controller.identities import make_identity

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CONFIG = '{"ignition": {"version": "3.3.0"}}'


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "labctl.db")
    with made.write() as connection:
        for digit, os_type in enumerate(OsType):
            name = os_type.value
            ensure_definition(connection, ImageDefinition(name=name, os_type=os_type), NOW)
            add_version(connection, make_version(name, digit))
    yield made
    made.close()


def make_version(definition, digit):
    return ImageVersion(
        definition=definition,
        version=VersionNumber(1, 0, 0),
        digest=str(digit) * 64,
        file_size=1,
        virtual_size=1,
        created_at=NOW,
        published_at=NOW,
    )


def apply(database, definition, custom_data):
    document = {
        "name": "web",
        "capacity": 1,
        "image": {"definition": definition, "version": "1.0.0"},
        "health": {"probe": {"protocol": "tcp", "port": 80}},
        "customData": {"inline": custom_data},
    }
    spec = ScaleSetSpec.model_validate(document)
    with database.write() as connection:
        return apply_spec(connection, spec, now=NOW)


@pytest.mark.parametrize("definition", ["flatcar", "fedora-coreos"])
def test_a_script_for_an_image_with_ignition_is_refused_before_anything_changes(
    database, definition
):
    with pytest.raises(InvalidError, match="is not an Ignition config") as caught:
        apply(database, definition, "#!/bin/sh\n")
    assert f"{definition!r} is {definition}, which takes nothing else" in caught.value.detail
    assert apply(database, definition, CONFIG).created


def test_a_change_to_a_script_is_refused_too(database):
    apply(database, "flatcar", CONFIG)
    with pytest.raises(InvalidError, match="is not an Ignition config"):
        apply(database, "flatcar", "#cloud-config\n")


def test_other_images_take_any_custom_data(database):
    assert apply(database, "linux", "#!/bin/sh\n").created


def test_a_file_is_what_the_named_definition_says_else_any_that_has_it(database):
    with database.write() as connection:
        ensure_definition(connection, ImageDefinition(name="a", os_type=OsType.LINUX), NOW)
        add_version(connection, make_version("a", 1))
        digest = "1" * 64
        assert find_os_type(connection, digest, "flatcar") is OsType.FLATCAR
        assert find_os_type(connection, digest, "a") is OsType.LINUX
        assert find_os_type(connection, digest, "gone") is OsType.LINUX
        assert find_os_type(connection, "f" * 64, "flatcar") is OsType.LINUX


@pytest.mark.parametrize(
    ("definition", "digest", "entry"),
    [
        ("linux", "0", None),
        ("flatcar", "1", "opt/org.flatcar-linux/config"),
        ("fedora-coreos", "2", "opt/com.coreos/config"),
    ],
)
def test_the_domain_has_the_config_where_the_image_looks(
    database, tmp_path, definition, digest, entry
):
    apply(database, definition, CONFIG)
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
        image_digest=digest * 64,
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
    assert find_ignition_entry(lab, generation, view.spec) == entry
    file = build_domain(lab, view, instance, generation, identity, []).firmware_file
    if entry is None:
        assert file is None
        return
    assert (file.name, file.path) == (entry, tmp_path / "scale-sets" / "web" / "web_0.g2.ign")
    content = build_ignition(lab, instance, view.spec, identity)
    assert (content.hostname, content.custom_data) == ("web-0", CONFIG.encode())
    assert content.public_keys == ("ssh-ed25519 AAAA",)
