"""What Prometheus is told of the lab: computed from the store and the board when it asks."""

import platform
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from typing_extensions import override

from labctl import __version__
from labctl.api.desk import Desk
from labctl.controller.desired import NO_CAPACITY
from labctl.model.instance import HealthState, Power
from labctl.model.plan import ScaleSet
from labctl.model.upgrade import Upgrade, UpgradeCode
from labctl.store.events import find_last_event_id
from labctl.store.operations import load_open_operations
from labctl.store.repairs import count_repairs
from labctl.store.scale_sets import load_scale_sets, load_view
from labctl.store.upgrades import count_upgrades, load_upgrades

_MOST_SETS = 500  # with series of their own
_MOST_VERSIONS = 20  # of a set; the rest is put together
_OTHER = "other"


class LabCollector(Collector):
    """The state of the lab as metrics."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @override
    def collect(self) -> Iterator[Metric]:
        """All families; the labels are names of sets, and words of which there are few."""
        build = GaugeMetricFamily(
            "labctl_build_info", "Which labctl this is.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        age = self._desk.board.survey_age
        if age is not None:
            yield GaugeMetricFamily(
                "labctl_survey_age_seconds", "Since the daemon looked at everything.", value=age
            )
        with self._desk.database.read() as connection:
            rows = load_scale_sets(connection)
            yield GaugeMetricFamily("labctl_scale_sets", "Scale sets.", value=len(rows))
            names = [row.name for row in rows[:_MOST_SETS]]
            views = [self._look(connection, name) for name in names]
            latest = {
                name: next(iter(load_upgrades(connection, name, limit=1)), None) for name in names
            }
            yield CounterMetricFamily(
                "labctl_events", "Events so far.", value=find_last_event_id(connection)
            )
            yield from _tell_operations(connection)
            yield from _tell_past(connection, frozenset(names))
        yield from _tell_sets(views)
        yield from _tell_upgrades(latest)

    def _look(self, connection: Connection, name: str) -> ScaleSet:
        sight = self._desk.board.find(name)
        if sight is not None:
            return sight.view
        return load_view(connection, name, capacity=NO_CAPACITY)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"labctl_{name}", text, labels=("scale_set", *labels))


def _tell_sets(views: list[ScaleSet]) -> Iterator[Metric]:
    capacity = _gauge("scale_set_capacity", "Instances that are wanted.")
    present = _gauge("scale_set_instances", "Instances that are there.")
    health = _gauge("scale_set_instances_by_health", "Instances by health.", "health")
    power = _gauge("scale_set_instances_by_power", "Instances by power state.", "power")
    version = _gauge(
        "scale_set_instances_by_version", "Instances by image version.", "image", "version"
    )
    open_repairs = _gauge("scale_set_repairs_in_progress", "Instances that are being repaired.")
    suspended = _gauge("scale_set_repairs_suspended", "1 while automatic repairs are suspended.")
    for view in views:
        name = view.name
        capacity.add_metric((name,), 0 if view.is_deleting else view.spec.capacity)
        present.add_metric((name,), len(view.instances))
        healths = Counter(each.health.state for each in view.instances)
        for state in HealthState:
            health.add_metric((name, state.value), healths[state])
        powers = Counter(each.domain.power for each in view.instances)
        for has in Power:
            power.add_metric((name, has.value), powers[has])
        versions = Counter(each.current.image_version for each in view.instances).most_common()
        for text, count in versions[:_MOST_VERSIONS]:
            version.add_metric((name, view.spec.image.definition, text), count)
        rest = sum(count for _, count in versions[_MOST_VERSIONS:])
        if rest:
            version.add_metric((name, view.spec.image.definition, _OTHER), rest)
        open_repairs.add_metric((name,), sum(each.is_open for each in view.repairs))
        suspended.add_metric((name,), int(view.repair_service.is_suspended))
    yield from (capacity, present, health, power, version, open_repairs, suspended)


def _tell_upgrades(latest: dict[str, Upgrade | None]) -> Iterator[Metric]:
    running = sum(each is not None and not each.code.is_final for each in latest.values())
    yield GaugeMetricFamily("labctl_upgrades_running", "Upgrades that run now.", value=running)
    state = _gauge("scale_set_latest_upgrade_state", "1 for the latest upgrade's state.", "state")
    counts = _gauge(
        "scale_set_latest_upgrade_instances", "Instances in the latest upgrade.", "progress"
    )
    began = _gauge("scale_set_latest_upgrade_start_time_seconds", "When it began, as Unix time.")
    for name, upgrade in latest.items():
        if upgrade is None:
            continue
        for code in UpgradeCode:
            state.add_metric((name, code.value), int(upgrade.code is code))
        for key, count in upgrade.counts.items():
            counts.add_metric((name, key.removesuffix("InstanceCount")), count)
        began.add_metric((name,), upgrade.started_at.timestamp())
    yield from (state, counts, began)


def _tell_past(connection: Connection, names: frozenset[str]) -> Iterator[Metric]:
    upgrades = CounterMetricFamily(
        "labctl_scale_set_upgrades", "Upgrades by state.", labels=("scale_set", "state")
    )
    for (name, code), count in count_upgrades(connection).items():
        if name in names:
            upgrades.add_metric((name, code), count)
    repairs = CounterMetricFamily(
        "labctl_scale_set_repairs",
        "Automatic repairs that have ended.",
        labels=("scale_set", "action", "outcome"),
    )
    for (name, action, outcome), count in count_repairs(connection).items():
        if name in names:
            repairs.add_metric((name, action, outcome), count)
    yield from (upgrades, repairs)


def _tell_operations(connection: Connection) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "labctl_operations_open", "Long-running operations that are open.", labels=("kind",)
    )
    kinds = Counter(operation.kind for operation in load_open_operations(connection))
    for kind, count in sorted(kinds.items()):
        family.add_metric((kind,), count)
    yield family
