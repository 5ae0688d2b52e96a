"""Which image definitions follow a publisher, kept as one setting."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from labctl.model.following import Follow, Wish
from labctl.model.image import VersionNumber
from labctl.model.publisher import Architecture
from labctl.store.settings import load_setting, save_setting

_SETTING = "followed-publishers"


def load_follows(connection: Connection) -> tuple[Follow, ...]:
    """All of them by definition."""
    saved = load_setting(connection, _SETTING) or {}
    return tuple(_read(name, saved[name]) for name in sorted(saved))


def find_follow(connection: Connection, definition: str) -> Follow | None:
    """What this definition follows, if anything."""
    return next((e for e in load_follows(connection) if e.definition == definition), None)


def save_follow(connection: Connection, follow: Follow) -> None:
    """Add it; what its definition followed before is replaced."""
    saved = load_setting(connection, _SETTING) or {}
    save_setting(connection, _SETTING, {**saved, follow.definition: _write(follow)})


def remove_follow(connection: Connection, definition: str) -> bool:
    """Follow no longer. False: it did not."""
    saved = load_setting(connection, _SETTING) or {}
    found = saved.pop(definition, None)
    save_setting(connection, _SETTING, saved)
    return found is not None


def _write(follow: Follow) -> dict[str, Any]:
    wish = follow.wish
    return {
        "publisher": wish.publisher,
        "offer": wish.offer,
        "sku": wish.sku,
        "architecture": wish.architecture.value,
        "publish": wish.publish,
        "requireSignature": wish.require_signature,
        "everySeconds": wish.every.total_seconds(),
        "checkedAt": follow.checked_at.isoformat() if follow.checked_at else None,
        "nextAt": follow.next_at.isoformat() if follow.next_at else None,
        "seen": str(follow.seen) if follow.seen else None,
        "trouble": follow.trouble,
        "failures": follow.failures,
    }


def _read(definition: str, saved: dict[str, Any]) -> Follow:
    return Follow(
        wish=Wish(
            definition=definition,
            publisher=saved["publisher"],
            offer=saved["offer"],
            sku=saved["sku"],
            architecture=Architecture(saved["architecture"]),
            publish=saved["publish"],
            require_signature=saved["requireSignature"],
            every=timedelta(seconds=saved["everySeconds"]),
        ),
        checked_at=_moment(saved["checkedAt"]),
        next_at=_moment(saved["nextAt"]),
        seen=VersionNumber.parse(saved["seen"]) if saved["seen"] else None,
        trouble=saved["trouble"],
        failures=saved["failures"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
