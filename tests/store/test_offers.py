from datetime import UTC, datetime, timedelta

import pytest

from labctl.errors import NotFoundError, RefusedError
from labctl.model.image import ImageDefinition, ImageVersion, VersionNumber
from labctl.store import gallery, offers
from labctl.store.database import Database
from labctl.store.settings import load_setting, save_setting

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
DAY = timedelta(days=1)
ONE, TWO = VersionNumber(1, 0, 0), VersionNumber(2, 0, 0)


@pytest.fixture
def connection(tmp_path):
    database = Database(tmp_path / "labctl.db")
    with database.write() as opened:
        gallery.ensure_definition(opened, ImageDefinition(name="tiny", os_type="linux"), NOW)
        for number in (ONE, TWO):
            image = ImageVersion(
                definition="tiny",
                version=number,
                digest=str(number.major) * 64,
                file_size=10,
                virtual_size=20,
                created_at=NOW,
                published_at=None,
            )
            gallery.add_version(opened, image)
        yield opened
    database.close()


def latest(connection, region="local", now=NOW):
    try:
        return gallery.resolve(connection, "tiny", "latest", region=region, now=now).version
    except NotFoundError:
        return None


def test_a_version_without_regions_is_offered_in_every_region(connection):
    offers.publish_version(connection, "tiny", ONE, NOW)
    assert (latest(connection), latest(connection, "far")) == (ONE, ONE)


def test_a_version_with_regions_is_offered_nowhere_else(connection):
    offers.publish_version(connection, "tiny", ONE, NOW)
    offers.publish_version(connection, "tiny", TWO, NOW, regions=["far"])
    assert (latest(connection), latest(connection, "far")) == (ONE, TWO)


def test_a_later_region_is_available_from_its_replication_on(connection):
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["far"])
    image = offers.replicate_version(connection, "tiny", ONE, ["local"], now=NOW + DAY)
    assert image.find_available_at("far") == NOW
    assert image.find_available_at("local") == NOW + DAY
    assert image.find_available_at("elsewhere") is None
    # Once more changes nothing.
    again = offers.replicate_version(connection, "tiny", ONE, ["local"], now=NOW + 2 * DAY)
    assert again == image


def test_replicated_everywhere_it_has_no_list_any_more(connection):
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["far"])
    offers.replicate_everywhere(connection, "tiny", ONE, now=NOW)
    assert latest(connection) == ONE


def test_an_exclusion_may_concern_one_region(connection):
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["local", "far"])
    offers.exclude_version(connection, "tiny", ONE, regions=["far"], now=NOW)
    assert (latest(connection), latest(connection, "far")) == (ONE, None)
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["far"])
    assert latest(connection, "far") == ONE


def test_a_region_that_has_it_by_no_name_cannot_be_excluded(connection):
    offers.publish_version(connection, "tiny", ONE, NOW)
    with pytest.raises(RefusedError, match="not replicated to region 'far' by name"):
        offers.exclude_version(connection, "tiny", ONE, regions=["far"], now=NOW)


def test_past_its_end_of_life_latest_is_another_version(connection):
    for number in (ONE, TWO):
        offers.publish_version(connection, "tiny", number, NOW)
    offers.set_end_of_life(connection, "tiny", TWO, NOW + DAY, now=NOW)
    assert latest(connection) == TWO
    assert latest(connection, now=NOW + DAY) == ONE
    # By its number, it is still there.
    assert gallery.resolve(connection, "tiny", "2.0.0", now=NOW + DAY).version == TWO
    offers.set_end_of_life(connection, "tiny", TWO, None, now=NOW)
    assert latest(connection, now=NOW + DAY) == TWO


def test_the_error_names_every_version_with_its_reason(connection):
    offers.publish_version(connection, "tiny", TWO, NOW, regions=["far"])
    with pytest.raises(NotFoundError) as caught:
        gallery.resolve(connection, "tiny", "latest", region="local", now=NOW)
    assert caught.value.detail == (
        "there are: 1.0.0 (not published), 2.0.0 (not replicated to region local (only to far))"
    )
    assert caught.value.hint == "run: labctl image publish tiny/2.0.0 --region local"


def test_a_deleted_version_takes_its_regions_along(connection):
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["far"])
    gallery.remove_version(connection, "tiny", ONE, now=NOW)
    image = ImageVersion(
        definition="tiny",
        version=ONE,
        digest="1" * 64,
        file_size=10,
        virtual_size=20,
        created_at=NOW,
        published_at=None,
    )
    gallery.add_version(connection, image)
    assert gallery.get_version(connection, "tiny", ONE, now=NOW).replicas == ()


def test_a_setting_is_replaced_as_a_whole(connection):
    assert load_setting(connection, "x") is None
    save_setting(connection, "x", {"a": 1})
    save_setting(connection, "x", {"b": 2})
    assert load_setting(connection, "x") == {"b": 2}


def test_regions_are_set_as_a_whole_and_keep_since_when(connection):
    offers.publish_version(connection, "tiny", ONE, NOW, regions=["near", "far"])
    later = NOW + DAY
    image = offers.set_regions(connection, "tiny", ONE, {"far": True, "new": False}, now=later)
    assert [
        (each.region, each.replicated_at, each.excluded_from_latest) for each in image.replicas
    ] == [
        ("far", NOW, True),
        ("new", later, False),
    ]
    assert (latest(connection, "far"), latest(connection, "new")) == (None, ONE)
    assert offers.set_regions(connection, "tiny", ONE, {}, now=later).replicas == ()
    assert latest(connection, "elsewhere") == ONE
