from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from labctl.errors import InvalidError, NotFoundError, RefusedError
from labctl.model.image import ImageDefinition, ImageVersion, VersionNumber
from labctl.store import gallery, offers
from labctl.store.database import Database
from labctl.store.schema import generation, instance, scale_set, upgrade

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
TINY = ImageDefinition(name="tiny", os_type="linux", description="small")


def _image(version, digest="a" * 64, definition="tiny"):
    return ImageVersion(
        definition=definition,
        version=VersionNumber.parse(version),
        digest=digest,
        file_size=10,
        virtual_size=20,
        created_at=NOW,
        published_at=None,
    )


def _number(text):
    return VersionNumber.parse(text)


@pytest.fixture
def connection(tmp_path):
    database = Database(tmp_path / "labctl.db")
    with database.write() as opened:
        gallery.ensure_definition(opened, TINY, NOW)
        yield opened
    database.close()


def _add_instance(connection, digest):
    connection.execute(
        insert(scale_set).values(
            name="web",
            model_revision=1,
            image_version="1.0.0",
            image_digest="f" * 64,
            is_deleting=False,
            next_ordinal=1,
            created_at=NOW,
        )
    )
    connection.execute(
        insert(instance).values(
            name="web_0",
            scale_set="web",
            ordinal=0,
            wanted="running",
            generation=2,
            uuid="u",
            mac="m",
            ssh_port=1,
            agent_port=2,
            probe_port=3,
            host_key="k",
            host_key_public="p",
            agent_token="t",
            health="Healthy",
            created_at=NOW,
        )
    )
    connection.execute(
        insert(generation).values(
            instance="web_0",
            number=1,
            image_version="1.0.0",
            image_digest=digest,
            model_revision=1,
            created_at=NOW,
        )
    )


def _add_upgrade(connection, digest, code):
    connection.execute(
        insert(upgrade).values(
            scale_set="web",
            started_by="User",
            target_version="2.0.0",
            target_digest=digest,
            model_revision=1,
            policy="{}",
            health_timeout=1,
            restores=True,
            code=code,
            started_at=NOW,
        )
    )


def test_a_definition_is_added_once_and_takes_a_newer_description(connection):
    assert not gallery.ensure_definition(connection, TINY, NOW)
    renamed = ImageDefinition(name="tiny", os_type="linux", description="smaller")
    assert not gallery.ensure_definition(connection, renamed, NOW)
    assert gallery.load_definitions(connection) == (renamed,)


def test_a_definition_does_not_change_its_operating_system(connection):
    with pytest.raises(RefusedError, match="is for linux"):
        gallery.ensure_definition(connection, ImageDefinition(name="tiny", os_type="windows"), NOW)


def test_adding_the_same_file_under_the_same_version_changes_nothing(connection):
    assert gallery.add_version(connection, _image("1.0.0"))
    assert not gallery.add_version(connection, _image("1.0.0"))
    assert gallery.load_versions(connection) == (_image("1.0.0"),)


def test_a_version_never_gets_other_content(connection):
    gallery.add_version(connection, _image("1.0.0"))
    with pytest.raises(RefusedError, match="other content") as caught:
        gallery.add_version(connection, _image("1.0.0", digest="b" * 64))
    assert "b" * 64 in caught.value.detail


def test_versions_are_listed_by_number_not_by_text(connection):
    for version in ("1.10.0", "1.9.0", "1.9.10", "1.9.9"):
        gallery.add_version(connection, _image(version))
    listed = [str(image.version) for image in gallery.load_versions(connection, "tiny")]
    assert listed == ["1.9.0", "1.9.9", "1.9.10", "1.10.0"]


def test_latest_is_the_highest_published_version_that_is_not_excluded(connection):
    for version in ("1.9.0", "1.10.0", "1.11.0"):
        gallery.add_version(connection, _image(version))
    offers.publish_version(connection, "tiny", _number("1.9.0"), NOW)
    offers.publish_version(connection, "tiny", _number("1.10.0"), NOW)
    assert gallery.resolve(connection, "tiny", "latest", now=NOW).name == "tiny/1.10.0"
    offers.exclude_version(connection, "tiny", _number("1.10.0"), now=NOW)
    assert gallery.resolve(connection, "tiny", "latest", now=NOW).name == "tiny/1.9.0"
    offers.publish_version(connection, "tiny", _number("1.10.0"), NOW + timedelta(days=1))
    again = gallery.resolve(connection, "tiny", "latest", now=NOW)
    assert (again.name, again.published_at) == ("tiny/1.10.0", NOW)


def test_a_version_that_is_named_need_not_be_published(connection):
    gallery.add_version(connection, _image("1.0.0"))
    assert gallery.resolve(connection, "tiny", "1.0.0", now=NOW) == _image("1.0.0")


@pytest.mark.parametrize(
    ("definition", "version", "brief", "detail"),
    [
        ("tine", "latest", "'tine' is not in the gallery", "there are: tiny"),
        ("tiny", "latest", "no version that `latest` may mean", "1.0.0 (not published)"),
        ("tiny", "2.0.0", "tiny/2.0.0 is not in the gallery", "1.0.0 (not published)"),
    ],
)
def test_what_cannot_be_resolved_is_answered_with_what_there_is(
    connection, definition, version, brief, detail
):
    gallery.add_version(connection, _image("1.0.0"))
    with pytest.raises(NotFoundError) as caught:
        gallery.resolve(connection, definition, version, now=NOW)
    assert brief in caught.value.brief
    assert detail in caught.value.detail
    assert caught.value.hint


def test_an_image_of_a_previous_generation_cannot_be_removed(connection):
    gallery.add_version(connection, _image("1.0.0"))
    _add_instance(connection, "a" * 64)
    with pytest.raises(RefusedError, match="is in use") as caught:
        gallery.remove_version(connection, "tiny", _number("1.0.0"), now=NOW)
    assert "instance web_0 (generation 1)" in caught.value.detail
    assert gallery.find_version(connection, "tiny", _number("1.0.0")) is not None


def test_an_image_in_use_can_lose_one_of_two_versions_but_not_the_last(connection):
    for version in ("1.0.0", "1.0.1"):
        gallery.add_version(connection, _image(version))
    _add_instance(connection, "a" * 64)
    gallery.remove_version(connection, "tiny", _number("1.0.0"), now=NOW)
    with pytest.raises(RefusedError):
        gallery.remove_version(connection, "tiny", _number("1.0.1"), now=NOW)


def test_the_image_of_a_scale_set_without_instances_is_in_use(connection):
    gallery.add_version(connection, _image("1.0.0", digest="f" * 64))
    _add_instance(connection, "a" * 64)
    assert gallery.find_users(connection, "f" * 64) == ("scale set web",)


@pytest.mark.parametrize(
    ("code", "users"),
    [
        ("RollingForward", ("upgrade 1 of web",)),
        ("RollingBack", ("upgrade 1 of web",)),
        ("Completed", ()),
        ("Cancelled", ()),
        ("Faulted", ()),
    ],
)
def test_only_a_running_upgrade_uses_its_target(connection, code, users):
    _add_upgrade(connection, "c" * 64, code)
    assert gallery.find_users(connection, "c" * 64) == users


def test_an_unused_version_is_removed_and_its_file_is_then_needed_by_nobody(connection):
    gallery.add_version(connection, _image("1.0.0"))
    assert gallery.is_needed(connection, "a" * 64)
    assert gallery.remove_version(connection, "tiny", _number("1.0.0"), now=NOW).digest == "a" * 64
    assert not gallery.is_needed(connection, "a" * 64)
    with pytest.raises(NotFoundError):
        gallery.remove_version(connection, "tiny", _number("1.0.0"), now=NOW)


def test_a_definition_goes_only_without_versions(connection):
    gallery.add_version(connection, _image("1.0.0"))
    with pytest.raises(RefusedError, match="has versions"):
        gallery.remove_definition(connection, "tiny")
    gallery.remove_version(connection, "tiny", _number("1.0.0"), now=NOW)
    gallery.remove_definition(connection, "tiny")
    assert gallery.load_definitions(connection) == ()


@pytest.mark.parametrize("text", ["tiny", "/1.0.0", "tiny/", "tiny/1.0", "tiny/latest"])
def test_a_name_without_definition_or_number_is_invalid(text):
    with pytest.raises(InvalidError):
        gallery.parse_name(text)


def test_a_name_is_definition_and_number():
    assert gallery.parse_name("tiny/1.10.0") == ("tiny", VersionNumber(1, 10, 0))
