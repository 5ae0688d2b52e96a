"""How an action that waits is told to stop waiting."""

import threading

from labctl.errors import LabError


class Signal:
    """Tells a waiting action to stop: it is wanted no more, or it cannot succeed."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.message = ""  # set: the instance failed; empty: cancelled

    def cancel(self) -> None:
        """What the action waits for is wanted no more."""
        self.event.set()

    def fail(self, message: str) -> None:
        """What the action waits for cannot come."""
        self.message = message
        self.event.set()

    def check(self) -> None:
        """Raise LabError once waiting makes no sense any more."""
        if self.event.is_set():
            raise LabError(self.message or "waiting was cancelled")

    @property
    def is_cancelled(self) -> bool:
        """Was it stopped without a failure?"""
        return self.event.is_set() and not self.message
