"""Facts in the words of tables: instances, actions, health."""

from typing import assert_never

from labctl.cli.output import Column
from labctl.controller.build import ssh_target
from labctl.controller.lab import Lab
from labctl.controller.protection import describe as describe_protection
from labctl.model.instance import Instance, Power, Wanted
from labctl.model.placement import place
from labctl.model.plan import (
    Action,
    AwaitReady,
    CollectEvidence,
    Define,
    DeleteInstance,
    DiscardGeneration,
    Plan,
    Prepare,
    RerunCustomData,
    RunExtension,
    RunHook,
    ScaleSet,
    Start,
    Stop,
)
from labctl.planner import has_latest_model, judge_health
from labctl.store.instances import load_identity

_COLUMNS = ("name", "imageVersion", "osDisk", "power", "health", "ssh", "doing")


def choose_columns(rows: list[dict[str, object]]) -> list[str | Column]:
    """The columns of a table of instances; what is rare has one only where it occurs."""
    reasons = {  # a column: the keys of which one must have a value
        "zone": ("zone",),
        "faultDomain": ("faultDomain",),
        "updateDomain": ("zone", "clusterManaged"),
        "replaces": ("replaces",),
        "replacedBy": ("replacedBy",),
        "protected": ("protected",),
    }
    extra = [
        column for column, keys in reasons.items() if any(row[key] for row in rows for key in keys)
    ]
    return [*_COLUMNS[:-1], *extra, _COLUMNS[-1]]


def describe_instance(
    lab: Lab, view: ScaleSet, plan: Plan, instance: Instance
) -> dict[str, object]:
    """One row for tables and JSON."""
    with lab.database.read() as connection:
        identity = load_identity(connection, instance.name)
    target = ssh_target(lab, identity)
    placement = place(view.spec, instance.ordinal)
    doing = [describe_action(action) for action in plan.actions if action.instance == instance.name]
    doing += [hold.reason for hold in plan.holds if hold.subject == instance.name]
    return {
        "name": instance.name,
        "imageVersion": instance.current.image_version,
        "osDisk": instance.generation,
        "power": instance.domain.power.value,
        "health": describe_health(instance, view),
        "healthDetail": instance.health.detail,
        "zone": placement.zone,
        "faultDomain": placement.fault_domain,
        "updateDomain": placement.update_domain,
        "clusterManaged": view.spec.cluster_manager is not None,
        "customMetrics": instance.health.custom_metrics or None,
        "ssh": f"{target.host}:{target.port}",
        "wanted": instance.wanted.value,
        "modelRevision": instance.current.model_revision,
        "latestModelApplied": has_latest_model(view, instance),
        "protectFromScaleIn": instance.protect_from_scale_in,
        "protectFromScaleSetActions": instance.protect_from_scale_set_actions,
        "protected": describe_protection(
            instance.protect_from_scale_in, instance.protect_from_scale_set_actions
        )
        or None,
        **_describe_pair(view, instance),
        "outOfServiceSince": instance.out_of_service_since,
        "uuid": str(identity.uuid),
        "mac": identity.mac,
        "doing": "; ".join(doing),
    }


def _describe_pair(view: ScaleSet, instance: Instance) -> dict[str, str | None]:
    """Who comes for whom in the running upgrade, by maxSurge."""
    members = view.upgrade.members if view.upgrade else ()
    pairs = [m for m in members if m.replaced_by and instance.name in m.pair]
    return {
        "replaces": next((m.instance for m in pairs if m.carrier == instance.name), None),
        "replacedBy": next((m.replaced_by for m in pairs if m.instance == instance.name), None),
    }


def describe_health(instance: Instance, scale_set: ScaleSet) -> str:
    """One word for a table."""
    if instance.wanted is not Wanted.RUNNING and instance.domain.power is Power.STOPPED:
        return "-"
    return judge_health(instance, scale_set).state.value


def describe_action(action: Action) -> str:
    """What is being done, as a person says it."""
    match action:
        case Prepare():
            return f"preparing OS disk {action.generation}"
        case Stop():
            return f"shutting down: {action.reason}"
        case Define():
            return f"switching to OS disk {action.generation}"
        case Start():
            return "powering on"
        case AwaitReady():
            return "booting, waiting for SSH and custom data"
        case RunExtension():
            return f"running extension {action.extension!r}"
        case RunHook():
            return f"{action.kind}: {action.reason}"
        case RerunCustomData():
            return "running custom data again"
        case CollectEvidence():
            return "saving evidence of the failure"
        case DiscardGeneration():
            return f"throwing OS disk {action.generation} away"
        case DeleteInstance():
            return "deleting"
        case _:
            assert_never(action)
