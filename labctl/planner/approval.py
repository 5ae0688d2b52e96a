"""Does a person have to say yes before the next batch?"""

from datetime import datetime

from labctl.model.control import ApprovalDefault, ApprovalPolicy, ApprovalScope
from labctl.model.plan import AskApproval, BeginBatch, Hold, ScaleSet
from labctl.model.quantity import format_duration
from labctl.model.upgrade import Upgrade


def find_approval(upgrade: Upgrade) -> ApprovalPolicy | None:
    """The policy, if the next batch needs an approval that nobody has given."""
    approval, number = upgrade.control.approval, upgrade.batches + 1
    if approval is None or upgrade.approved_batch >= number:
        return None
    is_needed = number == 1 or approval.before is ApprovalScope.EACH_BATCH
    return approval if is_needed else None


def find_silence(upgrade: Upgrade, now: datetime) -> str | None:
    """Why the upgrade ends where nobody has answered in time; None: it need not."""
    approval, asked_at = find_approval(upgrade), upgrade.approval_asked_at
    if approval is None or asked_at is None or upgrade.paused_at is not None:
        return None
    if approval.on_timeout is not ApprovalDefault.REJECT or now < asked_at + approval.timeout:
        return None
    waited = format_duration(approval.timeout)
    return f"batch {upgrade.batches + 1} was not approved within {waited}"


def _asked(approval: ApprovalPolicy) -> str:
    # A person can always answer, too.
    return approval.asked if approval.asked == "a person" else f"{approval.asked} or a person"


def await_approval(
    scale_set: ScaleSet, upgrade: Upgrade, batch: BeginBatch, now: datetime
) -> AskApproval | Hold | None:
    """Ask, or wait for the answer; None: the batch may begin."""
    approval, name = find_approval(upgrade), scale_set.name
    if approval is None:
        return None
    about = f"batch {batch.batch} ({', '.join(batch.instances)})"
    if upgrade.approval_asked_at is None:
        reason = f"{about} needs the approval of {_asked(approval)}: labctl upgrade approve {name}"
        return AskApproval(upgrade=upgrade.id, batch=batch.batch, reason=reason)
    until = upgrade.approval_asked_at + approval.timeout
    if now >= until:  # silence is consent: otherwise the upgrade would have ended
        return None
    after = "begins" if approval.on_timeout is ApprovalDefault.APPROVE else "is rejected"
    reason = (
        f"{about} waits for the approval of {_asked(approval)} until {until:%Y-%m-%d %H:%M} UTC "
        f"and {after} then: labctl upgrade approve {name}, or labctl upgrade reject {name}"
    )
    return Hold(subject=name, reason=reason, until=until)
