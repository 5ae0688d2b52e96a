"""Who may ask the API for what."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a token allows; each allows what the one before it does."""

    READ = "read"  # look at everything but secrets
    OPERATE = "operate"  # make, change, upgrade and delete
    ADMIN = "admin"  # tokens, files of the host, and programs that run on the host

    def allows(self, asked: "Scope") -> bool:
        """Does a token with this scope do for what asks for `asked`?"""
        order = list(Scope)
        return order.index(self) >= order.index(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whom a token names."""

    id: str  # a UUID, the client id for OAuth
    name: str  # as given by who made the token
    scope: Scope
