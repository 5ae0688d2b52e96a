"""Rolling upgrades as Azure shows them: the latest one, and the history."""

from collections.abc import Mapping
from typing import Any

from labctl.arm.durations import format_iso
from labctl.arm.errors import Document
from labctl.arm.statuses import format_moment
from labctl.model.upgrade import Member, MemberState, Upgrade
from labctl.model.upgrade_policy import RollingUpgradePolicy

Json = Any  # what json.loads gives

LATEST_TYPE = "Microsoft.Compute/virtualMachineScaleSets/rollingUpgrades"
_MEMBERS_TOLD = 100  # instances in `details`; a scale set may have 1000


def render_latest(upgrade: Upgrade, *, location: str, identifier: str) -> Document:
    """RollingUpgradeStatusInfo."""
    last_action, last_at = "Start", upgrade.started_at
    if upgrade.cancel_asked_at is not None:
        last_action, last_at = "Cancel", upgrade.cancel_asked_at
    return {
        "id": identifier,
        "name": "latest",
        "type": LATEST_TYPE,
        "location": location,
        "properties": {
            "policy": render_policy(upgrade.policy),
            "runningStatus": {
                "code": upgrade.code.value,
                "startTime": format_moment(upgrade.started_at),
                "lastAction": last_action,
                "lastActionTime": format_moment(last_at),
                **_render_end(upgrade),
            },
            "progress": dict(upgrade.counts),
            **_render_error(upgrade),
            "labctl": _render_own(upgrade),
        },
    }


def render_history(upgrade: Upgrade, *, location: str, image: Mapping[str, Json]) -> Document:
    """UpgradeOperationHistoricalStatusInfo; `image` is the scale set's imageReference."""
    states = [member.state for member in upgrade.members]
    reference = {key: value for key, value in image.items() if key != "exactVersion"}
    if "id" not in reference:
        reference["version"] = upgrade.target_version
    return {
        "type": LATEST_TYPE,
        "location": location,
        "properties": {
            "runningStatus": {
                "code": upgrade.code.value,
                "startTime": format_moment(upgrade.started_at),
                **_render_end(upgrade),
            },
            "progress": dict(upgrade.counts),
            **_render_error(upgrade),
            "startedBy": upgrade.started_by.value,
            "targetImageReference": reference | {"exactVersion": upgrade.target_version},
            "rollbackInfo": {
                "successfullyRolledbackInstanceCount": states.count(MemberState.ROLLED_BACK),
                "failedRolledbackInstanceCount": states.count(MemberState.ROLLBACK_FAILED),
            },
            "labctl": _render_own(upgrade),
        },
    }


def render_policy(policy: RollingUpgradePolicy) -> Document:
    """With durations as Azure writes them."""
    found: Document = policy.model_dump(mode="json", by_alias=True)
    pause = policy.pause_time_between_batches
    return found | {"pauseTimeBetweenBatches": format_iso(pause)}


def find_details(upgrade: Upgrade) -> list[Document]:
    """What became of each instance that did not come along."""
    failed = [member for member in upgrade.members if member.state.has_failed]
    return [_render_member(member) for member in failed[:_MEMBERS_TOLD]]


def _render_member(member: Member) -> Document:
    message = member.message or "it did not become healthy in time"
    return {
        "code": f"Instance{member.state.value}",
        "message": f"{member.carrier}: {message}",
        "target": str(member.ordinal),
    }


def _render_end(upgrade: Upgrade) -> Document:
    """Azure's clients read endTime; the page's sample has completedTime."""
    if upgrade.ended_at is None:
        return {}
    moment = format_moment(upgrade.ended_at)
    return {"endTime": moment, "completedTime": moment}


def _render_error(upgrade: Upgrade) -> Document:
    if upgrade.error is None:
        return {}
    error: Document = {"code": upgrade.error.code.value, "message": upgrade.error.message}
    details = find_details(upgrade)
    return {"error": error | ({"details": details} if details else {})}


def _render_own(upgrade: Upgrade) -> Document:
    return {
        "id": upgrade.id,
        "purpose": upgrade.purpose.value,
        "modelRevision": upgrade.model_revision,
        "targetVersion": upgrade.target_version,
        "batches": upgrade.batches,
        **({"endReason": upgrade.end_reason} if upgrade.end_reason else {}),
        **({"pausedAt": format_moment(upgrade.paused_at)} if upgrade.paused_at else {}),
        "members": [
            {
                "instanceId": str(member.ordinal),
                "state": member.state.value,
                **({"batch": member.batch} if member.batch is not None else {}),
                **({"message": member.message} if member.message else {}),
            }
            for member in upgrade.members
        ],
    }
