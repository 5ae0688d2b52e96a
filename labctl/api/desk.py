"""What every answer of the API is made from."""

import threading
from dataclasses import dataclass, field

from labctl.api.newsroom import Newsroom
from labctl.api.traffic import Traffic
from labctl.controller.board import Board
from labctl.settings import Settings
from labctl.store.database import Database

DEFAULT_GROUP = "labctl"  # of what was made without the API


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The store, what the keepers see, and who this lab is. Shared by all calls."""

    settings: Settings
    database: Database
    board: Board
    subscription_id: str  # a UUID; the lab is one subscription
    tenant_id: str  # a UUID
    stop: threading.Event = field(default_factory=threading.Event)  # streams end when it is set
    traffic: Traffic = field(default_factory=Traffic)
    newsroom: Newsroom = field(default_factory=Newsroom)

    @property
    def version(self) -> tuple[int, int]:
        """Another one whenever anything that an answer is made from may have changed."""
        return (self.database.find_version(), self.board.version)
