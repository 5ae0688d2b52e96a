"""Image definitions that follow a publisher: when to look again, and how the last look ended."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from labctl.model.image import VersionNumber
from labctl.model.publisher import Architecture

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=30)
_RETRY_FIRST = timedelta(minutes=1)
_DOUBLINGS = 20  # more are longer than LONGEST anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for: newer versions of this SKU become versions of `definition`."""

    definition: str
    publisher: str
    offer: str
    sku: str
    architecture: Architecture
    publish: bool  # offer it as `latest` at once
    require_signature: bool
    every: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """A wish, and what is known of it."""

    wish: Wish
    checked_at: datetime | None = None  # the publisher last answered
    next_at: datetime | None = None  # None: look at once
    seen: VersionNumber | None = None  # the publisher's newest; deleted here, it is not taken again
    trouble: str = ""  # why the last look failed
    failures: int = 0  # in a row

    @property
    def definition(self) -> str:
        """The image definition that gets the versions."""
        return self.wish.definition

    def is_due(self, now: datetime) -> bool:
        """Is it time to look?"""
        # A clock that was set back must not put the next look off for years.
        return self.next_at is None or not now < self.next_at <= now + self.wish.every

    def succeed(self, now: datetime, newest: VersionNumber | None) -> "Follow":
        """After a look; `newest` is the publisher's newest version, in the gallery by now."""
        return replace(
            self,
            checked_at=now,
            next_at=now + self.wish.every,
            seen=newest or self.seen,
            trouble="",
            failures=0,
        )

    def fail(self, now: datetime, trouble: str, *, is_lasting: bool) -> "Follow":
        """After a look that failed: again after 1, 2, 4 ... minutes, at most `every`.

        What does not mend itself by waiting is only tried again at its usual time.
        """
        wait = self.wish.every
        if not is_lasting:
            wait = min(wait, _RETRY_FIRST * 2 ** min(self.failures, _DOUBLINGS))
        return replace(self, next_at=now + wait, trouble=trouble, failures=self.failures + 1)
