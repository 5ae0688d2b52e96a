"""What in a spec reaches into the host: only admins may bring that in by the API."""

from collections.abc import Mapping

from labctl.arm.model_faults import Steps, source_of
from labctl.model.own_address import is_own_url
from labctl.model.spec import ScaleSetSpec
from labctl.model.webhook import Webhook


def find_host_access(
    spec: ScaleSetSpec, current: ScaleSetSpec | None, sources: Mapping[Steps, str]
) -> tuple[str, ...]:
    """JSON paths of programs, files and addresses of the host that `current` does not have so."""
    old = {} if current is None else _list(current)
    new = _list(spec)
    return tuple(
        source_of(at, sources) for at, value in new.items() if value not in _same_kind(old, at)
    )


def list_own_addresses(spec: ScaleSetSpec) -> list[Steps]:
    """Where a spec has addresses of the host itself."""
    return [at for at in _list(spec) if at[-1] == "url"]


def _same_kind(old: Mapping[Steps, object], at: Steps) -> list[object]:
    """What stood at the place; entries of arrays may have moved."""
    shape = [step for step in at if isinstance(step, str)]
    return [
        value
        for other, value in old.items()
        if [step for step in other if isinstance(step, str)] == shape
    ]


def _list(spec: ScaleSetSpec) -> dict[Steps, object]:
    found: dict[Steps, object] = {}
    policy = spec.upgrade_policy
    for kind, hook in (("drain", policy.hooks.drain), ("undrain", policy.hooks.undrain)):
        if hook is not None and hook.command is not None:
            found["upgradePolicy", "hooks", kind, "command"] = hook.command
    at: Steps = ("upgradePolicy", "approval")
    if policy.approval is not None and policy.approval.command is not None:
        found[*at, "command"] = policy.approval.command
    if policy.approval is not None and policy.approval.webhook is not None:
        found |= _list_webhook(policy.approval.webhook, (*at, "webhook"))
    for place, receiver in enumerate(spec.notifications):
        found |= _list_webhook(receiver, ("notifications", place))
    for place, extension in enumerate(spec.extensions):
        here: Steps = ("extensions", place)
        if extension.playbook is not None:
            # Its variables count, too: Ansible on the host evaluates templates in them.
            found[*here, "playbook"] = (
                extension.playbook, extension.settings, extension.protected_settings,
            )  # fmt: skip
        if extension.file is not None:
            found[*here, "file"] = extension.file
        if extension.protected_settings_file is not None:
            found[*here, "protectedSettingsFile"] = extension.protected_settings_file
        if extension.url is not None and is_own_url(extension.url):
            found[*here, "url"] = extension.url
    if spec.custom_data is not None and spec.custom_data.file is not None:
        found["customData", "file"] = spec.custom_data.file
    return found


def _list_webhook(webhook: Webhook, at: Steps) -> dict[Steps, object]:
    found: dict[Steps, object] = {}
    if webhook.secret_file is not None:
        found[*at, "secretFile"] = (webhook.secret_file, webhook.url)
    if is_own_url(webhook.url):
        found[*at, "url"] = webhook.url
    return found
