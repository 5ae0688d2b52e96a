"""URLs of webhooks in documents: their paths and queries may be secret, so clients see masks."""

from collections.abc import Mapping

from labctl.arm.errors import Document
from labctl.model.spec import ScaleSetSpec
from labctl.model.webhook import Webhook, mask_url


def mask_webhooks(part: Document) -> None:
    """Put masks in the place of the URLs in `properties.labctl`."""
    for webhook in _find(part).values():
        webhook["url"] = mask_url(str(webhook["url"]))


def unmask_webhooks(part: Document, current: ScaleSetSpec | None) -> None:
    """Put the present URLs back where a client sends the masks that it got."""
    known: dict[str, Webhook] = {}
    if current is not None:
        known = {f"notifications.{each.name}": each for each in current.notifications}
        approval = current.upgrade_policy.approval
        if approval is not None and approval.webhook is not None:
            known["approval"] = approval.webhook
    for key, webhook in _find(part).items():
        present = known.get(key)
        if present is not None and webhook["url"] == present.masked.url:
            webhook["url"] = present.url


def _find(part: Mapping[str, object]) -> dict[str, Document]:
    """Those that have a URL, by whom they are for."""
    found: dict[str, Document] = {}
    receivers = part.get("notifications")
    for each in receivers if isinstance(receivers, list) else []:
        if isinstance(each, dict) and isinstance(each.get("url"), str):
            found[f"notifications.{each.get('name')}"] = each
    policy = part.get("upgradePolicy")
    approval = policy.get("approval") if isinstance(policy, dict) else None
    webhook = approval.get("webhook") if isinstance(approval, dict) else None
    if isinstance(webhook, dict) and isinstance(webhook.get("url"), str):
        found["approval"] = webhook
    return found
