"""A small world for the planner: scripted instances, a clock that jumps, rules checked."""

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from labctl.model.cluster import ClusterManager, DurabilityLevel
from labctl.model.health_source import ApplicationHealth
from labctl.model.health_source import Health as HealthSpec
from labctl.model.instance import (
    NOT_CHECKED,
    DomainFacts,
    ExtensionFault,
    ExtensionRun,
    Failure,
    Generation,
    Health,
    HealthState,
    HookFailure,
    Instance,
    Power,
    Rung,
    Wanted,
)
from labctl.model.machine import ImageReference
from labctl.model.plan import (
    Action,
    AskApproval,
    AwaitReady,
    BeginBatch,
    HostCapacity,
    Plan,
    RunExtension,
    RunHook,
    ScaleSet,
    Stop,
)
from labctl.model.setup import Extension
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import StartedBy, Upgrade
from labctl.model.upgrade_policy import RollingUpgradePolicy, UpgradePolicy
from labctl.planner import make_members
from labctl.planner import plan as real_plan
from labctl.planner.foresight import change_instance, record, settle_member
from labctl.planner.outcome import apply as apply_action
from labctl.planner.outcome import change_current, mark_stopping
from tests.planner.rules import check_rules, is_restart_asked, is_through

T0 = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
MIB = 2**20
OLD, NEW = "1.0.0", "1.1.0"

RICH = HealthSpec(
    application_health=ApplicationHealth(
        port=8080, request_path="/health", type_handler_version="2.0"
    )
)

SECONDS = {
    "Prepare": 2,
    "RunHook": 5,
    "Stop": 3,
    "Define": 0,
    "Start": 1,
    "AwaitReady": 20,
    "RunExtension": 5,
    "RerunCustomData": 4,
    "CollectEvidence": 2,
    "DiscardGeneration": 0,
    "DeleteInstance": 3,
}

PlanFunction = Callable[[ScaleSet, datetime], Plan]


def digest(version: str) -> str:
    return version.replace(".", "").rjust(64, "0")


def make_spec(capacity: int, **changes: Any) -> ScaleSetSpec:
    values: dict[str, Any] = {
        "name": "web",
        "capacity": capacity,
        "image": ImageReference(definition="tiny"),
        "extensions": (Extension(name="app", script="true"),),
        "health": HealthSpec(
            application_health=ApplicationHealth(port=8080, request_path="/health")
        ),
    }
    return ScaleSetSpec(**(values | changes))


def make_cluster_managed() -> dict[str, Any]:
    """What a spec of a cluster-managed scale set has beside."""
    agent = Extension(name="app", script="true", settings={"durabilityLevel": "Bronze"})
    manager = ClusterManager(durability_level=DurabilityLevel.BRONZE, extension="app")
    return {"extensions": (agent,), "cluster_manager": manager}


def make_metrics(phase: int | None = None, *, skips: bool = False) -> str:
    """Custom metrics as an application tells them."""
    wish = {"PhaseOrderingNumber": phase, "SkipUpgrade": skips}
    return json.dumps({"rollingUpgrade": wish})


def telling(scale_set: ScaleSet, metrics: dict[str, str]) -> ScaleSet:
    """The scale set after its applications have told their custom metrics."""

    def tell(instance: Instance) -> Instance:
        told = replace(instance.health, custom_metrics=metrics.get(instance.name, ""))
        return replace(instance, health=told)

    return replace(scale_set, instances=tuple(map(tell, scale_set.instances)))


def make_policy(**policy: Any) -> UpgradePolicy:
    return UpgradePolicy(rolling_upgrade_policy=RollingUpgradePolicy(**policy))


def make_generation(number: int = 1, version: str = OLD, **changes: Any) -> Generation:
    values: dict[str, Any] = {
        "number": number,
        "image_version": version,
        "image_digest": digest(version),
        "model_revision": 1,
        "prepared": True,
        "started_at": T0 - timedelta(hours=1),
        "ready_at": T0 - timedelta(minutes=59),
        "extensions": (
            ExtensionRun(
                name="app",
                started_at=T0 - timedelta(minutes=59),
                finished_at=T0 - timedelta(minutes=58),
                exit_code=0,
            ),
        ),
    }
    return Generation(**(values | changes))


def make_instance(ordinal: int, **changes: Any) -> Instance:
    """An instance that has been healthy for nearly an hour, unless told otherwise."""
    values: dict[str, Any] = {
        "name": f"web_{ordinal}",
        "ordinal": ordinal,
        "wanted": Wanted.RUNNING,
        "generation": 1,
        "generations": (make_generation(),),
        "domain": DomainFacts(generation=1, power=Power.RUNNING, reason="booted"),
        "health": Health(state=HealthState.HEALTHY, since=T0 - timedelta(minutes=57)),
        "created_at": T0 - timedelta(hours=2),
    }
    return Instance(**(values | changes))


def make_set(
    count: int, *, instances: Iterable[Instance] | None = None, **changes: Any
) -> ScaleSet:
    """A provisioned scale set; `changes` may hold fields of the set and `spec`."""
    spec = changes.pop("spec", None) or make_spec(count)
    values: dict[str, Any] = {
        "name": "web",
        "spec": spec,
        "models": {1: spec},
        "model_revision": 1,
        "image_version": OLD,
        "image_digest": digest(OLD),
        "is_deleting": False,
        "next_ordinal": count,
        "instances": tuple(instances)
        if instances is not None
        else tuple(make_instance(n) for n in range(count)),
        "upgrade": None,
        "capacity": HostCapacity(
            boots_at_once=100, free_memory=2**50, overhead_per_instance=128 * MIB
        ),
    }
    return ScaleSet(**(values | changes))


def make_upgrade(scale_set: ScaleSet, **changes: Any) -> Upgrade:
    values: dict[str, Any] = {
        "id": 7,
        "scale_set": scale_set.name,
        "started_by": StartedBy.USER,
        "target_version": NEW,
        "target_digest": digest(NEW),
        "model_revision": scale_set.model_revision,
        "policy": scale_set.spec.upgrade_policy.rolling_upgrade_policy,
        "control": scale_set.spec.upgrade_policy.control,
        "health_timeout": scale_set.spec.upgrade_policy.health_timeout,
        "restores": True,
        "started_at": T0,
        "members": make_members(scale_set),
    }
    return Upgrade(**(values | changes))


def upgrading(scale_set: ScaleSet, **changes: Any) -> ScaleSet:
    return replace(scale_set, upgrade=make_upgrade(scale_set, **changes))


@dataclass(kw_only=True)
class Script:
    """How the world answers. `health`: seconds from ready to healthy; None is never."""

    seconds: dict[str, int] = field(default_factory=lambda: dict(SECONDS))
    health: Callable[[str, str, int], int | None] = lambda name, version, generation: 4
    boots: Callable[[str, str, int], bool] = lambda name, version, generation: True
    extends: Callable[[str, str, int], bool] = lambda name, version, generation: True
    metrics: Callable[[str], str] = lambda name: ""
    refuses: Callable[[str, str, int], bool] = lambda name, version, generation: False
    hooks: Callable[[str, str, int], bool] = lambda name, kind, try_: True
    memory: int = 2**50  # of the host, bytes
    new_model: int | None = None  # from this model on, an instance answers as on the image NEW
    shuffle: random.Random | None = None
    hears: Callable[["World", AskApproval], None] = lambda world, question: None


@dataclass(kw_only=True)
class World:
    scale_set: ScaleSet
    script: Script = field(default_factory=Script)
    plan: PlanFunction = real_plan
    now: datetime = T0
    log: list[str] = field(default_factory=list)
    jobs: dict[str, tuple[datetime, Action]] = field(default_factory=dict)
    later: list[tuple[datetime, str, Callable[["World"], None]]] = field(default_factory=list)
    sick: dict[str, datetime] = field(default_factory=dict)
    cures: dict[str, Callable[[Instance], bool]] = field(default_factory=dict)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    _holds: dict[str, str] = field(default_factory=dict)

    # --- what a test says ------------------------------

    def at(self, seconds: int, label: str, change: Callable[["World"], None]) -> None:
        """Let `change` happen `seconds` after the beginning."""
        self.later.append((T0 + timedelta(seconds=seconds), label, change))
        self.later.sort(key=lambda entry: entry[0])

    def run(self, turns: int = 5000) -> "World":
        """Until nothing happens any more; fails when that takes more than `turns`."""
        for _ in range(turns):
            if not self._turn():
                return self
        raise AssertionError(f"no end after {turns} turns:\n" + "\n".join(self.log[-30:]))

    # --- one turn ------------------------------

    def _turn(self) -> bool:
        while self.later and self.later[0][0] <= self.now:
            _, label, change = self.later.pop(0)
            self._write(f"-- {label}")
            change(self)
        for name, (end, action) in list(self.jobs.items()):
            if end <= self.now:
                del self.jobs[name]
                self._finish(action)
        self._observe()
        answer = self._ask()
        if answer.decisions:
            for decision in answer.decisions:
                self._write(f"{describe(decision)}: {decision.reason}")
                if isinstance(decision, BeginBatch):
                    self.batches.append(decision.instances)
                self.scale_set = record(self.scale_set, decision, self.now)
                if isinstance(decision, AskApproval):
                    self.script.hears(self, decision)
            return True
        started = [action for action in answer.actions if action.instance not in self.jobs]
        for action in started:
            self._write(f"{describe(action)}: {action.reason}")
            if isinstance(action, Stop):
                self.stops.append(action.instance)
            seconds = self.script.seconds[type(action).__name__]
            if isinstance(action, Stop):  # written before the power-off
                self._change(action.instance, mark_stopping)
            self.jobs[action.instance] = (self.now + timedelta(seconds=seconds), action)
        for hold in answer.holds:
            text = re.sub(r"\d+ s of", "N s of", hold.reason)
            if self._holds.get(hold.subject) != text:
                self._holds[hold.subject] = text
                self._write(f"   {hold.subject} holds: {hold.reason}")
        return self._advance(answer)

    def _advance(self, answer: Plan) -> bool:
        moments = [end for end, _ in self.jobs.values()]
        moments += [at for at, _, _ in self.later]
        moments += [hold.until for hold in answer.holds if hold.until is not None]
        moments += [moment for i in self.scale_set.instances for moment in self._health_moments(i)]
        if not moments:
            return False
        self.now = max(self.now, min(moments))
        return True

    def _ask(self) -> Plan:
        running = [
            i for i in self.scale_set.instances if i.domain.power in {Power.RUNNING, Power.PAUSED}
        ]
        capacity = self.scale_set.capacity
        each = self.scale_set.spec.size.memory + capacity.overhead_per_instance
        free = self.script.memory - each * len(running)
        self.scale_set = replace(self.scale_set, capacity=replace(capacity, free_memory=free))
        answer = self.plan(self.scale_set, self.now)
        check_rules(self.scale_set, answer, self.now)
        if self.script.shuffle is not None:
            assert self.plan(shuffle(self.scale_set, self.script.shuffle), self.now) == answer
        return answer

    def _write(self, line: str) -> None:
        minutes, seconds = divmod(int((self.now - T0).total_seconds()), 60)
        self.log.append(f"{minutes:02d}:{seconds:02d} {line}")

    def _change(self, name: str, change: Callable[[Instance], Instance | None]) -> None:
        changed = {i.name: change(i) if i.name == name else i for i in self.scale_set.instances}
        kept = tuple(i for i in changed.values() if i is not None)
        self.scale_set = replace(self.scale_set, instances=kept)

    def _version(self, instance: Instance) -> str:
        """What its script goes by: one that is to restart still runs what it ran."""
        new, current = self.script.new_model, instance.current
        is_new = new is not None and current.model_revision >= new
        return NEW if is_new and not is_restart_asked(instance) else current.image_version

    def find(self, name: str) -> Instance:
        return next(i for i in self.scale_set.instances if i.name == name)

    # --- how actions end ------------------------------

    def _finish(self, action: Action) -> None:
        if action.instance not in {i.name for i in self.scale_set.instances}:
            return
        instance = self.find(action.instance)
        key = (instance.name, self._version(instance), instance.generation)
        match action:
            case AwaitReady() if instance.domain.power is not Power.RUNNING:
                return  # it went off meanwhile
            case AwaitReady() if not self.script.boots(*key):
                self._fail(action.instance, Rung.SSH, "no SSH banner within 300 s")
            case RunHook():
                self._end_hook(action)
            case RunExtension() if self.script.refuses(*key) or not self.script.extends(*key):
                is_refused = self.script.refuses(*key)
                run = ExtensionRun(
                    name=action.extension,
                    started_at=self.now - timedelta(seconds=5),
                    finished_at=self.now,
                    exit_code=None if is_refused else 3,
                    fault=ExtensionFault.CREDENTIAL if is_refused else None,
                )
                self._change(
                    action.instance,
                    lambda i: change_current(i, lambda g: replace(g, extensions=(run,))),
                )
            case _:
                self._apply(action)

    def _end_hook(self, action: RunHook) -> None:
        """Whatever a hook that is not binding does, the instance counts as drained or undrained."""
        failure = self.find(action.instance).hook_failure
        tries = 1 + (failure.tries if failure and failure.kind is action.kind else 0)
        if not action.is_binding or self.script.hooks(action.instance, action.kind.value, tries):
            self._apply(action)
            return
        found = HookFailure(kind=action.kind, at=self.now, message="exit code 3", tries=tries)
        self._change(action.instance, lambda i: replace(i, hook_failure=found))

    def _apply(self, action: Action) -> None:
        self._change(action.instance, lambda i: apply_action(i, action, self.now))

    def _fail(self, name: str, rung: Rung, message: str) -> None:
        failure = Failure(rung=rung, message=message, at=self.now)
        self._change(name, lambda i: change_current(i, lambda g: replace(g, failure=failure)))

    def _health_moments(self, instance: Instance) -> list[datetime]:
        """When its health changes by itself from now on."""
        if not is_through(self.scale_set, instance):
            return []
        delay = self.script.health(instance.name, self._version(instance), instance.generation)
        ready_at = instance.current.ready_at
        assert ready_at is not None
        moment = ready_at + timedelta(seconds=delay or 0)
        return [moment] if moment > self.now else []

    def _observe(self) -> None:
        for instance in self.scale_set.instances:
            metrics = self.script.metrics(instance.name)
            health = replace(self._find_health(instance), custom_metrics=metrics)
            self.scale_set = change_instance(
                self.scale_set,
                instance.name,
                lambda i, health=health: replace(i, health=health),  # type: ignore[misc]
            )
            if is_through(self.scale_set, instance) and not is_restart_asked(instance):
                self.scale_set = settle_member(self.scale_set, instance.name, self.now)

    def _find_health(self, instance: Instance) -> Health:
        current = instance.current
        if not instance.is_settled or current.ready_at is None:
            return NOT_CHECKED
        delay = self.script.health(instance.name, self._version(instance), current.number)
        sick_at = self.sick.get(instance.name)
        if instance.name in self.cures and self.cures[instance.name](instance):
            sick_at = None
        if delay is None or (sick_at is not None and sick_at <= self.now):
            since = max(current.ready_at, sick_at or current.ready_at)
            return Health(state=HealthState.UNHEALTHY, since=since, detail="HTTP 503 from /health")
        healthy_at = current.ready_at + timedelta(seconds=delay)
        if self.now < healthy_at:
            return Health(state=HealthState.INITIALIZING, since=current.ready_at)
        return Health(state=HealthState.HEALTHY, since=healthy_at)


def describe(step: Any) -> str:
    """The type and every field that says what it is about."""
    told = {
        "reason",
        "error",
        "upgrade",
        "tag",
        "replacements",
        "is_untouched",
        "is_binding",
        "awaits_undrain",
    }
    fields = [getattr(step, name) for name in step.__dataclass_fields__ if name not in told]
    texts = [",".join(f) if isinstance(f, tuple) else str(f) for f in fields]
    texts += ["untouched"] if getattr(step, "is_untouched", False) else []
    texts += ["must succeed"] if getattr(step, "is_binding", False) else []
    return f"{type(step).__name__} {' '.join(texts)}"


def shuffle(scale_set: ScaleSet, chance: random.Random) -> ScaleSet:
    instances = list(scale_set.instances)
    chance.shuffle(instances)
    upgrade = scale_set.upgrade
    if upgrade is not None:
        members = list(upgrade.members)
        chance.shuffle(members)
        upgrade = replace(upgrade, members=tuple(members))
    repairs = list(scale_set.repairs)
    chance.shuffle(repairs)
    return replace(scale_set, instances=tuple(instances), upgrade=upgrade, repairs=tuple(repairs))
