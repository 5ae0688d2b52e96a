"""Settings that one command leaves for the others."""

import json
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from labctl.store.schema import setting


def load_setting(connection: Connection, name: str) -> dict[str, Any] | None:
    """What was saved under this name; None: nothing yet."""
    text = connection.execute(select(setting.c.value).where(setting.c.name == name)).scalar()
    return None if text is None else json.loads(text)


def save_setting(connection: Connection, name: str, value: dict[str, Any]) -> None:
    """Save a JSON object; what was there is replaced."""
    connection.execute(delete(setting).where(setting.c.name == name))
    connection.execute(insert(setting).values(name=name, value=json.dumps(value)))
