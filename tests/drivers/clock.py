"""A clock that goes only when a test lets it: deadlines are kept to the second, on any host."""

import threading


class Clock:
    """Stands for the module `time` where a deadline is computed."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def tick(self, seconds=1.0):
        self.now += seconds


class Looks(threading.Event):
    """An event for code that looks at it while it waits; `look` is called each time, first."""

    def __init__(self, look):
        super().__init__()
        self._look = look

    def is_set(self):
        self._look()
        return super().is_set()


def stop_clock(monkeypatch, *modules):
    """Give the modules a clock that stands still."""
    clock = Clock()
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
    return clock
