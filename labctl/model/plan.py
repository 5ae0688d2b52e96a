"""What the planner answers: decisions, actions and holds, each with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from labctl.model.hook import HookKind
from labctl.model.instance import Health, Instance
from labctl.model.instance_policy import RepairAction
from labctl.model.repair import NEVER_SUSPENDED, Repair, RepairOutcome, RepairService
from labctl.model.spec import ScaleSetSpec
from labctl.model.upgrade import MemberState, Upgrade, UpgradeCode, UpgradeError
from labctl.model.window import Clocks

# --- what the planner is asked -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCapacity:
    """What the host can take now."""

    boots_at_once: int  # how many instances may be between power-on and ready
    free_memory: int  # bytes for instances that are not yet running
    overhead_per_instance: int  # bytes that the emulator takes beside the guest's memory
    free_space: int = 2**60  # bytes where the disks are


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The wish of an `apply` that the instances get the newest model by themselves."""

    asked_at: datetime
    image_version: str | None = None  # None: the image stays what it is when the rollout begins
    image_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A step of one instance that the host did not let through, and when it is tried again."""

    step: str  # the kind of action: another one of the same instance is tried at once
    reason: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSet:
    """One scale set: the wish, the facts, and the upgrade that is running, if any."""

    name: str
    spec: ScaleSetSpec  # the newest model: capacity, policies, health
    models: dict[int, ScaleSetSpec]  # by revision; an instance runs its generation's model
    model_revision: int  # the revision of `spec`; new instances get it
    image_version: str  # what new instances boot; moves when an upgrade completes
    image_digest: str
    is_deleting: bool
    next_ordinal: int
    instances: tuple[Instance, ...]  # by ordinal
    upgrade: Upgrade | None  # the one that has not ended
    capacity: HostCapacity
    rollout: Rollout | None = None  # not begun yet; only in the modes Automatic and Rolling
    repairs: tuple[Repair, ...] = ()  # the open ones and the latest of the others
    repair_service: RepairService = NEVER_SUSPENDED
    clocks: Clocks = field(default_factory=dict)  # of the time zones of its maintenance windows
    setbacks: Mapping[str, Setback] = field(default_factory=dict)  # by instance; not recorded


# --- decisions: recorded in one commit, before anything acts --------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInstance:
    """Give an ordinal an identity and a first generation (or wake a record that was deleted)."""

    ordinal: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveInstance:
    """Mark an instance as to be deleted; its data disks are kept."""

    instance: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUpgrade:
    """Begin a rolling upgrade to the newest model, for the set's `rollout` (mode Rolling)."""

    target_version: str
    target_digest: str
    model_revision: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewInstances:
    """Give `instances` the newest model at once; the set's `rollout` is through (Automatic)."""

    instances: tuple[str, ...]
    target_version: str
    target_digest: str
    model_revision: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskApproval:
    """Ask a person whether the next batch may begin; the time for the answer runs from now."""

    upgrade: int
    batch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """By maxSurge: a new instance with this ordinal comes for `instance`."""

    instance: str
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginBatch:
    """Bring each of `instances` to the upgrade's target, mostly by a new generation."""

    upgrade: int
    batch: int
    instances: tuple[str, ...]
    reason: str
    replacements: tuple[Replacement, ...] = ()  # for some of them, or for all


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveMember:
    """Change the state of one member. ROLLING_BACK also sets the previous generation as wanted."""

    upgrade: int
    instance: str
    state: MemberState
    reason: str
    is_untouched: bool = False  # its drain failed: it gets back what it had, and was never stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginRollback:
    """A limit was exceeded: the upgrade only puts back what failed, then ends with `error`."""

    upgrade: int
    instances: tuple[str, ...]  # they get the OS disk and the model of before
    error: UpgradeError
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndBatch:
    """Every member of the batch has come to rest."""

    upgrade: int
    batch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndUpgrade:
    """The upgrade is over. COMPLETED also moves the scale set's image version."""

    upgrade: int
    code: UpgradeCode
    reason: str
    error: UpgradeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginRepair:
    """Restart, reimage or replace an unhealthy instance."""

    instance: str
    action: RepairAction
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRepair:
    """A repair has helped, has failed, or is none any more."""

    repair: int
    instance: str
    outcome: RepairOutcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendRepairs:
    """Repairs do not help: begin no more until a person resumes them."""

    reason: str


Decision = (
    CreateInstance
    | RemoveInstance
    | StartUpgrade
    | RenewInstances
    | AskApproval
    | BeginBatch
    | MoveMember
    | BeginRollback
    | EndBatch
    | EndUpgrade
    | BeginRepair
    | EndRepair
    | SuspendRepairs
)

# --- actions: idempotent effects on one instance --------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make overlay, seed and missing data disks of a generation. Nothing stops for it."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHook:
    """Take an instance out of service before a stop, or put it back."""

    instance: str
    kind: HookKind
    is_binding: bool  # a failure keeps labctl from going on
    awaits_undrain: bool = False  # a drain, after which it is out of service until an undrain
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Shut down by ACPI, destroy after the deadline."""

    instance: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Define:
    """(Re)define the domain on a generation: same UUID, MAC, ports and data disks."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Power on."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReady:
    """Climb the readiness ladder: domain, serial console, SSH, custom data."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExtension:
    """Run one extension, or take up the run that a dead controller left."""

    instance: str
    generation: int
    extension: str
    reason: str
    tag: str | None = None  # the forceUpdateTag that it runs under


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunCustomData:
    """Run the custom data again on the same OS disk (`labctl rerun --custom-data`)."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectEvidence:
    """Save serial tail, cloud-init result, extension output and health samples."""

    instance: str
    generation: int
    upgrade: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardGeneration:
    """Delete the files of an OS generation that nothing needs any more."""

    instance: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteInstance:
    """Stop and undefine the domain, delete its OS generations; data disks stay."""

    instance: str
    reason: str


Action = (
    Prepare
    | RunHook
    | Stop
    | Define
    | Start
    | AwaitReady
    | RunExtension
    | RerunCustomData
    | CollectEvidence
    | DiscardGeneration
    | DeleteInstance
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why nothing happens to `subject` (an instance or the scale set) now."""

    subject: str
    reason: str
    until: datetime | None = None  # when time alone will change the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Either decisions (record them, then ask again) or actions; holds beside either."""

    decisions: tuple[Decision, ...] = ()
    actions: tuple[Action, ...] = ()
    holds: tuple[Hold, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Is there nothing to do and nothing to wait for?"""
        return not (self.decisions or self.actions or self.holds)


__all__ = [
    "Action",
    "AskApproval",
    "AwaitReady",
    "BeginBatch",
    "BeginRepair",
    "BeginRollback",
    "CollectEvidence",
    "CreateInstance",
    "Decision",
    "Define",
    "DeleteInstance",
    "DiscardGeneration",
    "EndBatch",
    "EndRepair",
    "EndUpgrade",
    "Health",
    "Hold",
    "HostCapacity",
    "MoveMember",
    "Plan",
    "Prepare",
    "RemoveInstance",
    "RenewInstances",
    "Replacement",
    "RerunCustomData",
    "Rollout",
    "RunExtension",
    "RunHook",
    "ScaleSet",
    "Setback",
    "Start",
    "StartUpgrade",
    "Stop",
    "SuspendRepairs",
]
