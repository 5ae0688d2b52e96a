"""Stores of earlier revisions keep what they hold."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from labctl.store import migrations
from labctl.store.database import Database


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
