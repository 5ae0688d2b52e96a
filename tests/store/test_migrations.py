"""Stores of earlier revisions keep what they hold."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from labctl.model.control import NO_CONTROL
from labctl.store import migrations
from labctl.store.database import Database
from labctl.store.upgrades import load_upgrade


def test_protection_and_repairs_come_to_a_store_of_the_first_revision(tmp_path):
    path = tmp_path / "labctl.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO scale_set (name, model_revision, image_version, image_digest, "
                "is_deleting, next_ordinal, created_at) VALUES ('web', 1, '1.0.0', 'x', 0, 0, "
                "'2026-01-01T00:00:00+00:00')"
            )
        )
        connection.commit()
    engine.dispose()
    migrated = Database(path)
    with migrated.read() as connection:
        row = connection.execute(text("SELECT * FROM scale_set")).one()
    migrated.close()
    assert (row.name, row.repairs_suspended_at, row.repairs_suspended_reason) == ("web", None, "")


def test_an_upgrade_from_before_is_held_back_by_nothing(tmp_path):
    path = tmp_path / "labctl.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        connection.execute(
            text(
                "INSERT INTO upgrade (id, scale_set, started_by, target_version, target_digest, "
                "model_revision, policy, health_timeout, restores, code, started_at, batches) "
                "VALUES (1, 'web', 'User', '1.1.0', 'x', 1, '{}', 300000, 1, 'RollingForward', "
                "'2026-01-01T00:00:00+00:00', 0)"
            )
        )
        connection.commit()
    engine.dispose()
    migrated = Database(path)
    with migrated.read() as connection:
        found = load_upgrade(connection, 1)
    migrated.close()
    assert (found.control, found.paused_at, found.ignores_windows) == (NO_CONTROL, None, False)
    assert (found.approved_batch, found.cancel_reason, found.end_reason) == (0, "", "")
