"""From which SKU of which publisher a definition was pulled, kept as one setting."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from labctl.model.publisher import Architecture
from labctl.store.follows import load_follows
from labctl.store.settings import load_setting, save_setting

_SETTING = "pulled-skus"


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledSku:
    """What a publisher calls a definition."""

    definition: str
    publisher: str
    offer: str
    sku: str
    architecture: Architecture


def save_pulled_sku(connection: Connection, pulled: PulledSku) -> None:
    """Remember where the latest pull of a definition came from."""
    saved: dict[str, Any] = load_setting(connection, _SETTING) or {}
    entry = {
        "publisher": pulled.publisher,
        "offer": pulled.offer,
        "sku": pulled.sku,
        "architecture": pulled.architecture.value,
    }
    if saved.get(pulled.definition) != entry:
        save_setting(connection, _SETTING, {**saved, pulled.definition: entry})


def load_pulled_skus(connection: Connection) -> tuple[PulledSku, ...]:
    """By definition: what it was pulled from, and what it follows if that is another SKU."""
    saved: dict[str, Any] = load_setting(connection, _SETTING) or {}
    found = {
        PulledSku(
            definition=name,
            publisher=entry["publisher"],
            offer=entry["offer"],
            sku=entry["sku"],
            architecture=Architecture(entry["architecture"]),
        )
        for name, entry in saved.items()
    }
    for follow in load_follows(connection):
        wish = follow.wish
        found.add(
            PulledSku(
                definition=wish.definition,
                publisher=wish.publisher,
                offer=wish.offer,
                sku=wish.sku,
                architecture=wish.architecture,
            )
        )
    return tuple(sorted(found, key=lambda each: (each.definition, each.publisher, each.offer)))
