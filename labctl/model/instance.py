"""An instance as it is: identity, OS generations, domain, health."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from labctl.model.hook import HookKind
from labctl.model.setup import Extension


class Wanted(StrEnum):
    """What the user wants of one instance."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    DELETED = "Deleted"


class Power(StrEnum):
    """What the hypervisor says."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    PAUSED = "Paused"
    CRASHED = "Crashed"
    UNKNOWN = "Unknown"  # the hypervisor does not answer


class HealthState(StrEnum):
    """Azure's four states."""

    INITIALIZING = "Initializing"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


class Rung(StrEnum):
    """Where an instance is on its way from power-on to healthy, in order."""

    POWER_ON = "power-on"
    SSH = "ssh"
    CUSTOM_DATA = "custom-data"
    EXTENSIONS = "extensions"
    HEALTH = "health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Assigned at creation, kept for the instance's life, across OS swaps."""

    uuid: UUID
    mac: str
    ssh_port: int  # on 127.0.0.1, forwarded (network user)
    agent_port: int  # on 127.0.0.1, forwarded (network user)
    probe_port: int  # on 127.0.0.1, forwarded to the application's port (network user)
    address: str | None  # network nat: the address that DHCP hands out
    host_key: str  # private, OpenSSH format, ed25519
    host_key_public: str  # "ssh-ed25519 AAAA..."
    agent_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an instance does not get further on this generation."""

    rung: Rung
    message: str
    at: datetime


class ExtensionFault(StrEnum):
    """What kept an extension from succeeding, where that is not its script."""

    CREDENTIAL = "credential"  # expired or refused: no OS disk, new or old, would do better
    RESOURCE = "resource"  # what it names cannot be had, or is not what it should be


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRun:
    """The last run of one extension on one generation."""

    name: str
    started_at: datetime
    finished_at: datetime | None  # None: running, or the controller died meanwhile
    exit_code: int | None  # None with finished_at: timed out or connection lost
    output: str = ""  # the last 64 KiB of stdout and stderr
    fault: ExtensionFault | None = None
    tag: str | None = None  # the forceUpdateTag that it ran under

    @property
    def has_succeeded(self) -> bool:
        """Did it end with exit code 0?"""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One OS disk of an instance, with the model revision that made it."""

    number: int
    image_version: str  # "1.1.0"
    image_digest: str
    model_revision: int
    prepared: bool  # overlay and seed are on disk
    started_at: datetime | None = None  # the latest power-on by labctl on this generation
    ready_at: datetime | None = None  # SSH answered and custom data ended well, after started_at
    extensions: tuple[ExtensionRun, ...] = ()
    failure: Failure | None = None
    evidence_at: datetime | None = None  # the evidence of `failure` has been saved

    @property
    def is_ready(self) -> bool:
        """Has this power-on got as far as the end of custom data?"""
        return (
            self.ready_at is not None
            and self.started_at is not None
            and self.ready_at >= self.started_at
        )

    def is_through(self, extension: Extension) -> bool:
        """Has it succeeded here under its present tag, or failed, which it may?"""
        return any(
            run.name == extension.name
            and (run.has_succeeded or (extension.suppress_failures and run.finished_at is not None))
            # Only another tag is a wish to run again, not that there is none any more.
            and extension.force_update_tag in {None, run.tag}
            for run in self.extensions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """What libvirt has for an instance."""

    generation: int | None  # None: no domain is defined
    power: Power
    reason: str = ""  # libvirt's reason for the state: "booted", "shutdown", "crashed", "panicked"
    is_stale: bool = False  # defined otherwise than this controller would define it


NO_DOMAIN = DomainFacts(generation=None, power=Power.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The present verdict on an instance."""

    state: HealthState
    since: datetime | None = None  # None: never checked
    detail: str = ""  # "HTTP 503 from /health"
    custom_metrics: str = ""  # what the application told last, see `custom_metrics.py`


NOT_CHECKED = Health(state=HealthState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFailure:
    """The latest hook did not do its work, and its policy is not to go on without."""

    kind: HookKind
    at: datetime
    message: str
    tries: int = 1  # in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Everything that the planner knows of one instance."""

    name: str  # "web_3"
    ordinal: int
    wanted: Wanted
    generation: int  # the generation that it should boot
    generations: tuple[Generation, ...]  # those that are kept, oldest first
    domain: DomainFacts = NO_DOMAIN
    health: Health = NOT_CHECKED
    restart_asked_at: datetime | None = None  # `labctl instance restart`
    rerun_custom_data_asked_at: datetime | None = None  # `labctl rerun`
    protect_from_scale_in: bool = False
    protect_from_scale_set_actions: bool = False  # upgrades and the like; never without the above
    drained_at: datetime | None = None  # for the stop that is to come, which forgets it
    out_of_service_since: datetime | None = None  # drained, and not undrained since
    hook_failure: HookFailure | None = None  # forgotten by a stop, a success, or a new wish
    created_at: datetime

    @property
    def current(self) -> Generation:
        """The generation that it should boot."""
        return next(g for g in self.generations if g.number == self.generation)

    def find_generation(self, number: int) -> Generation | None:
        """The generation with this number, if it is kept."""
        return next((g for g in self.generations if g.number == number), None)

    def get_generation(self, number: int) -> Generation:
        """Raises LookupError: actions only name generations that are kept."""
        found = self.find_generation(number)
        if found is None:
            raise LookupError(f"{self.name} has no OS generation {number}")
        return found

    @property
    def is_protected(self) -> bool:
        """Is it protected from anything? Automatic repairs respect either."""
        return self.protect_from_scale_in or self.protect_from_scale_set_actions

    @property
    def is_settled(self) -> bool:
        """Does the running domain boot the generation that it should, and is it ready?"""
        return (
            self.domain.power is Power.RUNNING
            and self.domain.generation == self.generation
            and self.current.is_ready
        )
