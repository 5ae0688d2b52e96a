"""Instance views: what an instance is doing, in Azure's words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from labctl.arm.errors import Document
from labctl.arm.statuses import (
    Level,
    ProvisioningState,
    Status,
    make_provisioning_status,
    summarize,
)
from labctl.model.instance import ExtensionRun, HealthState, Instance, Power, Wanted
from labctl.model.placement import Placement
from labctl.model.spec import ScaleSetSpec

Json = Any  # what json.loads gives

_MESSAGE_LIMIT = 2000  # characters of an extension's output


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An instance with what the planner makes of its facts."""

    instance: Instance
    model: ScaleSetSpec  # the one that it runs
    placement: Placement
    state: ProvisioningState
    trouble: str = ""  # why it has failed, or what it is waiting for
    health: HealthState | None = None  # None: it is stopped as its user wants
    health_reason: str = ""
    has_latest_model: bool = False
    uuid: str = ""
    is_deallocated: bool = False  # that is how its user switched it off
    # By the name of each extension: publisher and type as its client wrote them.
    extensions: Mapping[str, "ExtensionKind"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionKind:
    """What Azure's clients call an extension."""

    publisher: str
    type: str
    version: str = "1.0"

    @property
    def is_health(self) -> bool:
        """Is it the one that tells health? labctl has no extension for that."""
        return self.type.lower().startswith("applicationhealth")


def find_kinds(extensions: Json) -> dict[str, ExtensionKind]:
    """Publisher and type of each extension of a scale set's document."""
    found = {}
    for each in extensions or ():
        properties = each.get("properties") or {}
        found[str(each.get("name", ""))] = ExtensionKind(
            publisher=str(properties.get("publisher", "")),
            type=str(properties.get("type", "")),
            version=str(properties.get("typeHandlerVersion", "1.0")),
        )
    return found


def render_instance_view(judged: Judged) -> Document:
    """The instance view of one instance; provisioning comes first, then power."""
    instance, where = judged.instance, judged.placement
    found: Document = {
        "platformUpdateDomain": where.update_domain,
        "platformFaultDomain": where.fault_domain,
        "computerName": name_computer(instance.name),
        "osName": "windows" if judged.model.is_windows else "linux",
        "vmAgent": _render_agent(judged),
        "disks": _render_disks(judged),
        "extensions": [each for each in _render_extensions(judged) if each],
        "statuses": [status.document for status in find_statuses(judged)],
    }
    if judged.health is not None:
        found["vmHealth"] = {"status": make_health_status(judged).document}
    return found


def render_set_view(
    all_judged: Sequence[Judged],
    *,
    state: ProvisioningState,
    at: datetime,
    message: str,
    repair_state: str | None,
) -> Document:
    """The instance view of a whole scale set: how many are in which state."""
    codes = [status.code for judged in all_judged for status in find_statuses(judged)]
    codes += [make_health_status(each).code for each in all_judged if each.health is not None]
    names: dict[str, list[str]] = {}
    for judged in all_judged:
        for name, status in find_extension_statuses(judged).items():
            names.setdefault(name, []).append(status.code)
    found: Document = {
        "virtualMachine": {"statusesSummary": summarize(codes)},
        "extensions": [
            {"name": name, "statusesSummary": summarize(each)} for name, each in names.items()
        ],
        "statuses": [make_provisioning_status(state, message=message, at=at).document],
        "orchestrationServices": [],
    }
    if repair_state is not None:
        service = {"serviceName": "AutomaticRepairs", "serviceState": repair_state}
        found["orchestrationServices"] = [service]
    return found


def find_statuses(judged: Judged) -> tuple[Status, Status]:
    """Provisioning and power, in this order: clients read them by their places."""
    at = judged.instance.current.ready_at or judged.instance.created_at
    return (
        make_provisioning_status(judged.state, message=judged.trouble, at=at),
        _make_power_status(judged),
    )


def make_health_status(judged: Judged) -> Status:
    """The present verdict."""
    state = judged.health or HealthState.UNKNOWN
    match state:
        case HealthState.HEALTHY:
            level, text = Level.INFO, "The VM is healthy."
        case HealthState.INITIALIZING:
            level, text = Level.INFO, "The VM is not through yet."
        case HealthState.UNHEALTHY:
            level, text = Level.WARNING, "The VM is unhealthy."
        case HealthState.UNKNOWN:
            level, text = Level.WARNING, "The health of the VM is not known."
        case _:
            assert_never(state)
    return Status(
        code=f"HealthState/{state.value.lower()}",
        text=text,
        level=level,
        message=judged.health_reason,
        at=judged.instance.health.since,
    )


def find_extension_statuses(judged: Judged) -> dict[str, Status]:
    """The status of each extension of its model, and of the one that tells health."""
    found = {}
    runs = {run.name: run for run in judged.instance.current.extensions}
    for extension in judged.model.extensions:
        run = runs.get(extension.name)
        found[extension.name] = make_extension_status(run)
    for name, kind in judged.extensions.items():
        if kind.is_health and judged.model.health.application_health is not None:
            found[name] = make_provisioning_status(ProvisioningState.SUCCEEDED)
    return found


def make_extension_status(run: ExtensionRun | None) -> Status:
    """How the latest run of an extension went."""
    if run is None:
        return Status(code="ProvisioningState/creating", text="Not started yet")
    if run.finished_at is None:
        return Status(code="ProvisioningState/transitioning", text="Running", at=run.started_at)
    if run.has_succeeded:
        return make_provisioning_status(
            ProvisioningState.SUCCEEDED,
            message=run.output[-_MESSAGE_LIMIT:],
            at=run.finished_at,
        )
    end = "did not end" if run.exit_code is None else f"ended with exit code {run.exit_code}"
    return Status(
        code=f"ProvisioningState/failed/{'' if run.exit_code is None else run.exit_code}".rstrip(
            "/"
        ),
        text="Provisioning failed",
        level=Level.ERROR,
        message=f"{end}\n{run.output[-_MESSAGE_LIMIT:]}".strip(),
        at=run.finished_at,
    )


def name_computer(name: str) -> str:
    """The host name of an instance; underscores are not for host names."""
    return name.replace("_", "-")


def render_extension_view(judged: Judged, name: str) -> Document:
    """The instance view of one extension on one instance."""
    status = find_extension_statuses(judged)[name]
    kind = judged.extensions.get(name)
    found: Document = {
        "name": name,
        "type": f"{kind.publisher}.{kind.type}" if kind else "",
        "typeHandlerVersion": kind.version if kind else "1.0",
        "statuses": [status.document],
    }
    if kind is not None and kind.is_health:
        found["substatuses"] = [each.document for each in _make_health_substatuses(judged)]
    return found


def _render_extensions(judged: Judged) -> list[Document]:
    return [render_extension_view(judged, name) for name in find_extension_statuses(judged)]


def _make_health_substatuses(judged: Judged) -> list[Status]:
    health = judged.health or HealthState.UNKNOWN
    found = [
        Status(
            code="ComponentStatus/AppHealthStatus/"
            + ("succeeded" if health is HealthState.HEALTHY else "failed"),
            text=f"Application is {health.value.lower()}",
            level=Level.INFO if health is HealthState.HEALTHY else Level.WARNING,
            message=judged.health_reason,
            at=judged.instance.health.since,
        ),
        Status(
            code=f"ComponentStatus/ApplicationHealthState/{health.value.lower()}",
            text=f"Application health state is {health.value}",
            at=judged.instance.health.since,
        ),
    ]
    if judged.instance.health.custom_metrics:
        found.append(
            Status(
                code="ComponentStatus/CustomMetrics/succeeded",
                text="Provisioning succeeded",
                message=judged.instance.health.custom_metrics,
                at=judged.instance.health.since,
            )
        )
    return found


def _make_power_status(judged: Judged) -> Status:
    instance = judged.instance
    power = instance.domain.power
    match power:
        case Power.STOPPED if judged.is_deallocated and instance.wanted is Wanted.STOPPED:
            code, text, level = "deallocated", "VM deallocated", Level.INFO
        case Power.RUNNING:
            code, text, level = "running", "VM running", Level.INFO
        case Power.STOPPED:
            code, text, level = "stopped", "VM stopped", Level.INFO
        case Power.PAUSED:
            code, text, level = "paused", "VM paused by the hypervisor", Level.ERROR
        case Power.CRASHED:
            code, text, level = "crashed", "VM crashed", Level.ERROR
        case Power.UNKNOWN:
            code, text, level = "unknown", "VM not observed", Level.WARNING
        case _:
            assert_never(power)
    return Status(code=f"PowerState/{code}", text=text, level=level, message=instance.domain.reason)


def _render_agent(judged: Judged) -> Document:
    ready_at = judged.instance.current.ready_at
    status = (
        Status(code="ProvisioningState/updating", text="Not Ready", level=Level.WARNING)
        if ready_at is None
        else Status(code="ProvisioningState/succeeded", text="Ready", at=ready_at)
    )
    return {"vmAgentVersion": "labctl", "statuses": [status.document], "extensionHandlers": []}


def _render_disks(judged: Judged) -> list[Document]:
    current = judged.instance.current
    state = ProvisioningState.SUCCEEDED if current.prepared else ProvisioningState.CREATING
    at = judged.instance.created_at
    names = [
        name_os_disk(judged.instance),
        *(name_data_disk(judged.instance, disk.name) for disk in judged.model.data_disks),
    ]
    return [
        {"name": name, "statuses": [make_provisioning_status(state, at=at).document]}
        for name in names
    ]


def name_os_disk(instance: Instance) -> str:
    """One for each generation."""
    return f"{instance.name}.g{instance.generation}"


def name_data_disk(instance: Instance, disk: str) -> str:
    """It outlives every OS disk."""
    return f"{instance.name}.{disk}"
