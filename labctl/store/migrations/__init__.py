"""Brings the tables of an existing store up to date, with Alembic."""

import fcntl
from pathlib import Path

from sqlalchemy import Engine, inspect, text

from labctl.errors import HostError

HEAD = "0010"  # the newest file in versions/; a test compares
KNOWN = frozenset({"0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010"})


def ensure_current(engine: Engine, path: Path) -> None:
    """Migrate to HEAD; does nothing, and imports no Alembic, where that is done.

    Raises HostError when the store was written by a newer labctl.
    """
    if _find_revision(engine) == HEAD:
        return
    # Two processes may find a new store at once; the second waits here and then has nothing to do.
    with path.with_name(path.name + ".migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        revision = _find_revision(engine)
        if revision == HEAD:
            return
        if revision is not None and revision not in KNOWN:
            raise HostError(
                f"the store {str(path)!r} was written by a newer labctl (revision {revision!r})",
                detail=f"this labctl knows revisions up to {HEAD!r}",
                hint="use that newer labctl, or another --state-dir",
            )
        _migrate(engine)


def _find_revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.connect() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
