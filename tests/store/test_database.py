import multiprocessing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from labctl.errors import HostError
from labctl.model.event import EventKind
from labctl.store import migrations
from labctl.store.database import Database
from labctl.store.events import add_event, load_events
from labctl.store.schema import metadata

NOW = datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "labctl.db")
    yield made
    made.close()


def test_the_file_is_private_from_the_start(database):
    assert database.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_may_read_becomes_private_again(tmp_path):
    path = tmp_path / "labctl.db"
    Database(path).close()
    path.chmod(0o644)
    database = Database(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with database.write() as connection:
        _note(connection, "now there is a log, too")
        assert (tmp_path / "labctl.db-wal").stat().st_mode & 0o777 == 0o600
    database.close()


def test_a_path_may_hold_any_character(tmp_path):
    path = tmp_path / 'it\'s a "lab" & 100 % ?x=1' / "labctl.db"
    Database(path).close()
    assert path.exists()


def test_head_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert script.get_current_head() == migrations.HEAD
    assert {revision.revision for revision in script.walk_revisions()} == migrations.KNOWN


def test_migrated_tables_are_the_tables_of_the_schema(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_store_of_a_newer_labctl_is_left_alone(database):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(HostError, match="newer labctl"):
        Database(database.path)


def _open(path, results):
    try:
        Database(path).close()
        results.put("ok")
    except Exception as error:  # noqa: BLE001 - the parent looks at it
        results.put(repr(error))


def test_processes_that_start_at_once_share_one_new_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = tmp_path / "labctl.db"
    processes = [context.Process(target=_open, args=(path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == ["ok"] * 4
    for process in processes:
        process.join()


def test_a_failed_transaction_leaves_nothing(database):
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        _note(connection, "lost")
        raise ZeroDivisionError
    with database.read() as connection:
        assert load_events(connection) == []


def test_writers_in_threads_wait_for_each_other(database):
    from concurrent.futures import ThreadPoolExecutor

    def work(number):
        for turn in range(10):
            with database.write() as connection:
                known = len(load_events(connection))
                _note(connection, f"{number}.{turn} after {known}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with database.read() as connection:
        events = load_events(connection)
    # Every writer saw what all earlier ones had written.
    assert [int(event.message.split()[-1]) for event in events] == list(range(40))


def test_moments_come_back_aware_and_in_order(database):
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    with database.write() as connection:
        _note(connection, "a", at=elsewhere)
    with database.read() as connection:
        assert load_events(connection)[0].at == NOW


def test_events_can_be_narrowed_and_cut(database):
    with database.write() as connection:
        for number in range(5):
            _note(connection, str(number), instance="web_1" if number % 2 else None)
    with database.read() as connection:
        assert [e.message for e in load_events(connection, limit=2)] == ["3", "4"]
        assert [e.message for e in load_events(connection, instance="web_1")] == ["1", "3"]
        assert load_events(connection, scale_set="other") == []
        assert [e.message for e in load_events(connection, after=4)] == ["4"]


def _note(connection, message, *, at=NOW, instance=None):
    add_event(
        connection,
        at=at,
        scale_set="web",
        instance=instance,
        kind=EventKind.STEP,
        message=message,
    )


def test_a_store_of_before_keeps_its_rows_and_learns_what_its_images_stand_for(tmp_path):
    path = tmp_path / "labctl.db"
    moment = "2026-11-23T00:00:00.000000+00:00"
    earlier = "2026-11-22T00:00:00.000000+00:00"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for name in ("web", "new"):
            connection.execute(
                text(
                    "INSERT INTO scale_set (name, model_revision, image_version, image_digest, "
                    "is_deleting, next_ordinal, created_at) VALUES (:name, 3, '1.0.0', 'd', 0, 0, "
                    ":moment)"
                ),
                {"name": name, "moment": moment},
            )
            connection.execute(
                text("INSERT INTO model VALUES (:name, 1, '{}', :moment)"),
                {"name": name, "moment": moment},
            )
        rows = [("web", "Completed", 2, moment), ("web", "Faulted", 3, moment)]
        for name, code, revision, at in [*rows, ("new", "Completed", 2, earlier)]:
            connection.execute(
                text(
                    "INSERT INTO upgrade (scale_set, started_by, target_version, target_digest, "
                    "model_revision, policy, health_timeout, restores, code, started_at, batches) "
                    "VALUES (:name, 'User', '1.0.0', 'd', :revision, '{}', 1, 0, :code, :at, 0)"
                ),
                {"name": name, "code": code, "revision": revision, "at": at},
            )
    engine.dispose()
    database = Database(path)
    with database.read() as connection:
        assert connection.execute(
            text("SELECT name, image_revision, rollout_asked_at FROM scale_set ORDER BY name")
        ).all() == [("new", 1, None), ("web", 2, None)]
        assert connection.execute(text("SELECT count(*) FROM model")).scalar() == 2
        purposes = connection.execute(text("SELECT purpose FROM upgrade")).scalars().all()
        assert purposes == ["OsImage"] * 3
    database.close()


def test_the_version_changes_with_each_commit_of_another_and_with_nothing_else(database):
    first = database.find_version()
    with database.read() as connection:
        connection.execute(text("SELECT count(*) FROM event"))
    assert database.find_version() == first
    with database.write() as connection:
        _note(connection, "from the same process")
    second = database.find_version()
    assert second != first
    other = Database(database.path)  # as another process has it
    with other.write() as connection:
        _note(connection, "from elsewhere")
    other.close()
    assert database.find_version() not in {first, second}
