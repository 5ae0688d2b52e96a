"""Counts the calls that were answered, by route; for /metrics."""

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Named(Protocol):
    """A route, as far as it concerns those who count."""

    @property
    def path(self) -> str: ...


class Traffic:
    """What clients have asked, and how long answers took. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "labctl_api_requests_total",
            "Requests that the API has answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "labctl_api_request_duration_seconds",
            "Time from the request's head to the begin of the answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge(
            "labctl_api_event_streams",
            "Clients that are following events now.",
            registry=self.registry,
        )
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def count(self, method: str, route: _Named | None, status: int, seconds: float) -> None:
        """Count one answer. Labels are bounded: what clients make up is put together."""
        name = method if method in _METHODS else "OTHER"
        path = "unknown" if route is None else route.path
        # To find a child by its labels takes longer than to count.
        counter = self._counters.get((name, path, status))
        if counter is None:
            counter = self._requests.labels(name, path, str(status))
            self._counters[name, path, status] = counter
        histogram = self._histograms.get((name, path))
        if histogram is None:
            histogram = self._histograms[name, path] = self._durations.labels(name, path)
        counter.inc()
        histogram.observe(seconds)
