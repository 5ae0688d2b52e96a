import multiprocessing
import subprocess
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from labctl.controller.images import collect_garbage, delete_image, import_image
from labctl.drivers.blobs import admitting, find_digests
from labctl.errors import InvalidError, RefusedError
from labctl.model.image import ImageDefinition, VersionNumber
from labctl.settings import Settings
from labctl.store import gallery
from labctl.store.database import Database
from labctl.store.schema import scale_set

pytestmark = pytest.mark.host

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TINY = ImageDefinition(name="tiny", os_type="linux")


@pytest.fixture
def lab(tmp_path):
    return Settings(state_dir=tmp_path / "state", uri="test:///default")


@pytest.fixture
def database(lab):
    opened = Database(lab.database)
    yield opened
    opened.close()


@pytest.fixture
def make_image(tmp_path):
    def make(name="a.qcow2", size="4M"):
        path = tmp_path / name
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), size], check=True)
        return path

    return make


def _import(lab, database, source, version="1.0.0", **options):
    return import_image(
        lab,
        database,
        source,
        definition=TINY,
        version=VersionNumber.parse(version),
        publish=options.pop("publish", False),
        now=NOW,
        **options,
    )


def _names(database):
    with database.read() as connection:
        return [image.name for image in gallery.load_versions(connection)]


def _use(database, digest):
    with database.write() as connection:
        connection.execute(
            insert(scale_set).values(
                name="web",
                model_revision=1,
                image_version="1.0.0",
                image_digest=digest,
                is_deleting=False,
                next_ordinal=0,
                created_at=NOW,
            )
        )


def test_an_import_makes_file_and_row_and_is_not_offered_yet(lab, database, make_image):
    source = make_image()
    imported = _import(lab, database, source)
    assert (imported.is_new, imported.file_is_new) == (True, True)
    assert imported.image.published_at is None
    assert imported.image.source == str(source)
    assert find_digests(lab) == (imported.image.digest,)


def test_the_same_import_again_changes_nothing_but_may_publish(lab, database, make_image):
    source = make_image()
    first = _import(lab, database, source)
    again = _import(lab, database, source, publish=True)
    assert (again.is_new, again.file_is_new) == (False, False)
    assert again.image.digest == first.image.digest
    assert again.image.published_at == NOW


def test_other_content_under_a_taken_version_is_refused_and_its_file_is_not_kept(
    lab, database, make_image
):
    kept = _import(lab, database, make_image())
    with pytest.raises(RefusedError, match="other content"):
        _import(lab, database, make_image("b.qcow2", size="8M"))
    assert find_digests(lab) == (kept.image.digest,)


def test_a_refused_import_does_not_delete_a_file_that_another_version_has(
    lab, database, make_image
):
    one, two = make_image(), make_image("b.qcow2", size="8M")
    _import(lab, database, one, "1.0.0")
    _import(lab, database, two, "2.0.0")
    with pytest.raises(RefusedError):
        _import(lab, database, two, "1.0.0")
    assert len(find_digests(lab)) == 2


def test_a_refused_file_makes_no_definition(lab, database, tmp_path):
    bad = tmp_path / "bad.qcow2"
    bad.write_bytes(b"no image")
    with pytest.raises(InvalidError):
        _import(lab, database, bad)
    with database.read() as connection:
        assert gallery.load_definitions(connection) == ()


def test_the_file_goes_with_the_last_version_that_names_it(lab, database, make_image):
    source = make_image()
    _import(lab, database, source, "1.0.0")
    _import(lab, database, source, "1.0.1")
    assert not delete_image(lab, database, "tiny", VersionNumber(1, 0, 0), now=NOW)
    assert len(find_digests(lab)) == 1
    assert delete_image(lab, database, "tiny", VersionNumber(1, 0, 1), now=NOW)
    assert find_digests(lab) == ()


def test_an_image_in_use_is_neither_deleted_nor_garbage(lab, database, make_image):
    imported = _import(lab, database, make_image())
    _use(database, imported.image.digest)
    with pytest.raises(RefusedError, match="in use"):
        delete_image(lab, database, "tiny", VersionNumber(1, 0, 0), now=NOW)
    assert collect_garbage(lab, database).digests == ()
    assert find_digests(lab) == (imported.image.digest,)


def test_a_file_that_a_crash_left_without_a_row_is_garbage(lab, database, make_image):
    kept = _import(lab, database, make_image())
    with admitting(lab, make_image("b.qcow2", size="8M")) as blob:
        pass  # the process dies before the row is written
    assert collect_garbage(lab, database).digests == (blob.digest,)
    assert find_digests(lab) == (kept.image.digest,)
    assert collect_garbage(lab, database).digests == ()


def _import_in_process(lab, source, version, barrier, results):
    database = Database(lab.database)
    barrier.wait(30)
    try:
        results.put(_import(lab, database, source, version).is_new)
    finally:
        database.close()


def test_processes_that_import_the_same_version_at_once_agree(lab, database, make_image):
    source = make_image()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_import_in_process, args=(lab, source, "1.0.0", barrier, results))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=40) for _ in processes) == [False, False, True]
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert _names(database) == ["tiny/1.0.0"]


def test_delete_and_import_of_the_same_file_at_once_never_leave_a_row_without_a_file(
    lab, database, make_image
):
    source = make_image()
    _import(lab, database, source, "1.0.0")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    process = context.Process(
        target=_import_in_process, args=(lab, source, "2.0.0", barrier, results)
    )
    process.start()
    barrier.wait(30)
    delete_image(lab, database, "tiny", VersionNumber(1, 0, 0), now=NOW)
    assert results.get(timeout=30)
    process.join(20)
    assert _names(database) == ["tiny/2.0.0"]
    assert len(find_digests(lab)) == 1
